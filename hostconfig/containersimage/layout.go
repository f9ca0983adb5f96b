package containersimage

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
)

const (
	folder = "/etc/containers"
	vendor = "/usr/share/containers"

	// File is sidemirror's drop-in. It is read early, so that an administrator's drop-in of the same
	// prefix wins.
	File = folder + "/registries.conf.d/000-sidemirror.conf"

	// ProbeFile is the drop-in by which skopeo is asked whether it reads such files. It is there for
	// as long as that takes.
	ProbeFile = folder + "/registries.conf.d/000-sidemirror-probe.conf"

	// rootFolder is where the library looks for files of root as a user.
	rootFolder = "/root/.config/containers"
)

// layout is the files that one generation of the library reads, in their order.
type layout struct {
	files []source
	user  []source // of root as a user, which replace entries of the others
}

// source is one file that is read.
type source struct {
	path string
	file *splice.Registries
}

// readLayout reads the files of a generation: up to podman 5 the main file and the drop-ins of /etc,
// from podman 6 on those of /usr/share too, sorted by name over all folders
// (go.podman.io/storage/pkg/configfile).
func readLayout(tree *hostfs.Host, modern bool) (*layout, error) {
	l := new(layout)
	mains, folders := []string{folder + "/registries.conf"}, []string{folder + "/registries.conf.d"}
	if modern {
		mains = append(mains, vendor+"/registries.conf")
		folders = []string{vendor + "/registries.conf.d", vendor + "/registries.rootful.conf.d", folders[0], folder + "/registries.rootful.conf.d"}
	}
	for _, main := range mains {
		if tree.IsFile(main) {
			if err := l.read(tree, &l.files, main); err != nil {
				return nil, err
			}
			break
		}
	}
	names, err := dropIns(tree, folders)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := l.read(tree, &l.files, name); err != nil {
			return nil, err
		}
	}
	if names, err = dropIns(tree, []string{rootFolder + "/registries.conf.d"}); err != nil {
		return l, nil //nolint:nilerr // the watching service does not see root's home
	}
	for _, name := range names {
		if err := l.read(tree, &l.user, name); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// dropIns lists the *.conf files of some folders by their names. A file of a later folder replaces
// one of the same name.
func dropIns(tree *hostfs.Host, folders []string) ([]string, error) {
	found := make(map[string]string)
	for _, dir := range folders {
		list, err := tree.Names(dir)
		if err != nil {
			return nil, err
		}
		for _, item := range list {
			if !item.IsDir() && strings.HasSuffix(item.Name(), ".conf") {
				found[item.Name()] = path.Join(dir, item.Name())
			}
		}
	}
	var names []string
	for _, base := range slices.Sorted(maps.Keys(found)) {
		names = append(names, found[base])
	}
	return names, nil
}

// read adds a file to a list. Of sidemirror's own file only what others added counts.
func (l *layout) read(tree *hostfs.Host, list *[]source, name string) error {
	f, err := tree.Read(name)
	if err != nil {
		return err
	}
	data := f.Data
	if name == File {
		removed, err := splice.RemoveRegistries(name, data, nil)
		if err != nil {
			return err
		}
		data = removed.Rest
	}
	file, err := splice.ReadRegistries(name, data)
	if err != nil {
		return err
	}
	*list = append(*list, source{name, file})
	return nil
}

// origin is an entry in force, and the file that it is from.
type origin struct {
	splice.RegistryEntry
	path string
}

// inForce returns the entries in force by their prefix: those of a later file replace others.
func inForce(files []source) map[string]origin {
	all := make(map[string]origin)
	for _, s := range files {
		for _, e := range s.file.Entries {
			all[e.Prefix] = origin{e, s.path}
		}
	}
	return all
}

// find returns the entry for a registry, a repository or a reference: that of the longest prefix
// (sysregistriesv2, findRegistryWithParsedConfig).
func find(all map[string]origin, ref string) (origin, bool) {
	var best origin
	for _, prefix := range slices.Sorted(maps.Keys(all)) {
		if matchEnd(ref, prefix) >= 0 && len(prefix) > len(best.Prefix) {
			best = all[prefix]
		}
	}
	return best, best.Prefix != ""
}

// matchEnd returns where in ref the part ends that a prefix is for, or -1. The library takes "host" for
// a prefix of "host:5000", so that this does (refMatchingPrefix).
func matchEnd(ref, prefix string) int {
	end := len(prefix)
	if domain, ok := strings.CutPrefix(prefix, "*"); ok && strings.HasPrefix(domain, ".") {
		at := strings.Index(ref, domain)
		if at < 0 || strings.Contains(ref[:at], "/") {
			return -1
		}
		end = at + len(domain)
	} else if !strings.HasPrefix(ref, prefix) {
		return -1
	}
	if end < len(ref) && !strings.ContainsRune(":/@", rune(ref[end])) {
		return -1
	}
	return end
}
