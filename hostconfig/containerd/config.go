package containerd

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// config is what matters to sidemirror of containerd's configuration.
type config struct {
	exists  bool
	empty   bool // a file without any setting
	version int  // of the main file

	// replaces says that of two files with a section of CRI the later one counts alone, as up to 1.7.
	replaces bool

	imports  []string // of the main file
	path     string   // config_path in force; "" if unset
	pathIn   string   // the file that sets it
	section  []string // the section in which it does
	criIn    string   // the last file that has a section of CRI
	disabled bool     // CRI is off
	address  string   // of containerd's socket; "" if not set
	sum      string   // of all files
	doubtful bool     // containerd reads them in another way

	edited   time.Time // of the file that was edited last
	editedIn string    // that file

	// conflicts are settings next to which containerd refuses config_path. local are those for which
	// CRI pulls without the transfer service, which takes a list for one folder.
	conflicts, local []setting

	reader splice.Version // the containerd that reads them
}

// setting is one setting of a file.
type setting struct {
	file string
	splice.Setting
}

// roots are the folders of config_path.
func (c config) roots() []string {
	return slices.DeleteFunc(strings.Split(c.path, ":"), func(s string) bool { return !path.IsAbs(s) })
}

// folder returns the first folder of config_path, or what is usual if there is none.
func (c config) folder() string {
	if roots := c.roots(); len(roots) > 0 {
		return roots[0]
	}
	return hostsFolder
}

// maxImports bounds the files that make up one configuration.
const maxImports = 64

// readConfig reads config.toml, what it imports, and what that imports, in containerd's order
// (cmd/containerd/server/config, LoadConfig). conf.d is not read unless a file imports it, although
// config dump lists it from 2.3 on.
func readConfig(tree *hostfs.Host, main string, v version.Version) (config, error) {
	conf := config{replaces: v.Known() && !v.AtLeast(2, 0), reader: splice.Version(v)}
	sum := sha256.New()
	seen := make(map[string]bool)
	for pending := []string{main}; len(pending) > 0; pending = pending[1:] {
		name := pending[0]
		if seen[name] {
			continue
		}
		if seen[name] = true; len(seen) > maxImports {
			return conf, &problem.Problem{
				Code: "containerd-imports-too-many", Path: main, Text: fmt.Sprintf("imports more than %d files", maxImports), Hint: "check its imports",
			}
		}
		f, err := tree.ReadTrusted(name)
		switch {
		case err != nil:
			return conf, err
		case !f.Exists() && name == main:
			return conf, nil
		case !f.Exists():
			return conf, &problem.Problem{
				Code: "containerd-import-missing", Path: main,
				Text: "imports " + problem.QuotePath(name) + ", which does not exist: containerd would not start",
				Hint: "create that file, or remove it from imports",
			}
		}
		fmt.Fprintf(sum, "%q %x\n", name, sha256.Sum256(f.Data))
		if at := editTime(f); at.After(conf.edited) {
			conf.edited, conf.editedIn = at, name
		}
		imports, err := conf.add(name, f.Data, name == main)
		if err != nil {
			return conf, err
		}
		for _, pattern := range imports {
			list, err := imported(tree, name, pattern, v)
			if err != nil {
				return conf, err
			}
			pending = append(pending, list...)
		}
	}
	conf.exists, conf.sum = true, hex.EncodeToString(sum.Sum(nil))
	return conf, nil
}

// editTime returns the earlier of the times of a file: a chmod changes only the one, and a copy can
// take over the other.
func editTime(f hostfs.File) time.Time {
	if f.Attrs.Mtime.Before(f.Attrs.Changed) {
		return f.Attrs.Mtime
	}
	return f.Attrs.Changed
}

// imported returns the files that one of a file's imports names. Only a star makes it a pattern; up
// to 1.6 a pattern is relative to the folder that containerd was started in.
func imported(tree *hostfs.Host, file, pattern string, v version.Version) ([]string, error) {
	star := strings.Contains(pattern, "*")
	from := path.Dir(file)
	if star && v.Known() && !v.AtLeast(1, 7) {
		from = "/"
	}
	if pattern = path.Clean(pattern); !path.IsAbs(pattern) {
		pattern = path.Join(from, pattern)
	}
	if !star {
		return []string{pattern}, nil
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, &problem.Problem{
			Code: "containerd-import-invalid", Path: file, Text: fmt.Sprintf("imports %q, which is not a pattern: containerd would not start", pattern),
			Hint: "correct it",
		}
	}
	return tree.Glob(pattern)
}

// add reads one file over what those before it said.
func (c *config) add(name string, data []byte, main bool) (imports []string, err error) {
	file, err := splice.ReadConfig(name, data, c.reader)
	if err != nil {
		return nil, err
	}
	if main {
		c.version, c.imports, c.empty = file.Version, file.Imports, file.Empty
	}
	c.address = cmp.Or(file.Address, c.address)
	c.disabled = c.disabled || file.Disabled
	if !file.CRI {
		return file.Imports, nil
	}
	if c.criIn != "" && c.criIn != name && c.replaces {
		c.path, c.pathIn, c.section, c.conflicts, c.local = "", "", nil, nil, nil
	}
	c.criIn = name
	if file.PathSet {
		c.path, c.pathIn, c.section = file.Path, name, file.Section
	}
	for _, s := range file.Conflicts {
		c.conflicts = append(c.conflicts, setting{name, s})
	}
	for _, s := range file.LocalPull {
		c.local = append(c.local, setting{name, s})
	}
	return file.Imports, nil
}
