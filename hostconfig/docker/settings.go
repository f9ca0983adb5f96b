package docker

import (
	"cmp"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/hostconfig/unitfile"
	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

const mirrorFlag = "--registry-mirror"

// settings are those of dockerd that decide what is right for sidemirror.
type settings struct {
	Mirrors       []string        `json:"registry-mirrors"`
	Insecure      []string        `json:"insecure-registries"`
	Features      map[string]bool `json:"features"`
	DataRoot      string          `json:"data-root"`
	StorageDriver string          `json:"storage-driver"`
}

// readSettings reads daemon.json and adds what dockerd is given by flag.
func (d *docker) readSettings() error {
	f, err := d.Tree.Read(d.json)
	if err != nil {
		return err
	}
	s := &d.settings
	if f.Exists() {
		file, err := splice.ReadDaemon(d.json, f.Data, splice.Version(d.version))
		if err != nil {
			return err
		}
		if err := file.Decode(s); err != nil {
			return err
		}
	}
	s.Mirrors = append(s.Mirrors, process.Flags(d.args, mirrorFlag)...)
	s.Insecure = append(s.Insecure, process.Flags(d.args, "--insecure-registry")...)
	s.DataRoot = cmp.Or(process.Flag(d.args, "--data-root", "-g"), s.DataRoot, "/var/lib/docker")
	s.StorageDriver = cmp.Or(process.Flag(d.args, "--storage-driver", "-s"), s.StorageDriver)
	return nil
}

// commandLine returns the arguments of the running dockerd, or else those by which it would be
// started.
func (d *docker) commandLine() ([]string, error) {
	if d.daemon != nil {
		return d.daemon.Args(), nil
	}
	service, err := unitfile.Read(d.Tree, "docker.service")
	if err != nil {
		return nil, err
	}
	args := service.Args
	if args == nil && d.Tree.IsFile("/etc/init.d/docker") {
		if args, err = unitfile.Words(d.Tree, "/etc/default/docker", "DOCKER_OPTS"); err != nil {
			return nil, err
		}
	}
	for _, arg := range args {
		if strings.Contains(arg, "$") {
			return nil, &problem.Problem{
				Code: "docker-flags-unresolved", Path: "docker.service", Text: "dockerd's flags depend on a variable whose value cannot be found: " + arg,
				Hint: "start Docker, or set the variable in the unit's Environment=",
			}
		}
	}
	return args, nil
}

// graphDrivers are those that dockerd 29 knows (moby, daemon/graphdriver).
var graphDrivers = []string{"overlay2", "fuse-overlayfs", "btrfs", "zfs", "vfs"}

// usesGraphDriver reports whether Docker stores images with a graph driver. Up to 28 it does unless
// the feature containerd-snapshotter is on. From 29 on it does if one is set, or if the store
// already has images of one (moby, daemon/image_store_choice.go). What the file says comes before
// what runs: it is in force from the next start on.
func (d *docker) usesGraphDriver() bool {
	s := d.settings
	if snapshotter, set := s.Features["containerd-snapshotter"]; set {
		return !snapshotter
	}
	if d.info.Store != "" {
		return d.info.Store != containerdStore
	}
	if !d.version.AtLeast(29, 0) {
		return true
	}
	if slices.Contains(graphDrivers, s.StorageDriver) {
		return true
	}
	return slices.ContainsFunc(graphDrivers, func(driver string) bool {
		return driver != "vfs" && d.hasContent(s.DataRoot+"/"+driver)
	})
}

// hasContent reports whether a folder exists and is not empty. It does not watch the folder.
func (d *docker) hasContent(name string) bool {
	real, err := d.Tree.Follow(name)
	if err != nil {
		return false
	}
	f, err := d.Tree.Open(real)
	if err != nil {
		return false
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	return err == nil && len(names) > 0
}

// mirrorEntry is sidemirror's entry in daemon.json: the first of registry-mirrors.
type mirrorEntry struct {
	url     string
	version version.Version
}

func (mirrorEntry) Kind() engine.Kind { return engine.DaemonJSON }

func (e mirrorEntry) Add(name string, base []byte) ([]byte, error) {
	v := splice.Version(e.version)
	if base == nil {
		v = splice.Version{} // no file is none that dockerd refuses, as it may an empty one
	}
	d, err := splice.ReadDaemon(name, base, v)
	if err != nil {
		return nil, err
	}
	return d.AddMirror(e.url)
}

func (e mirrorEntry) Settled(name string, now []byte) bool {
	d, err := splice.ReadDaemon(name, now, splice.Version(e.version))
	// dockerd 20.10 takes a mirror whose scheme is in capitals for a host name.
	return err == nil && d.Settled(e.url) && strings.HasPrefix(d.Mirrors[0], "http://")
}

func (e mirrorEntry) Merge(other engine.Entry) (engine.Entry, bool) {
	return e, other == engine.Entry(e)
}
