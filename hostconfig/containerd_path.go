package hostconfig

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// dropIn sorts behind the other files of a conf.d, since the last one wins.
const dropIn = "99-sidemirror.toml"

// setPath plans config_path. On 1.x a drop-in that names CRI would replace the
// whole of CRI's section (k0s #6547: nodes lost SystemdCgroup and failed), so
// there, and where the version is not known, the line goes into the file that has that
// section. From 2.0 on drop-ins are merged.
func (c *containerd) setPath(state *State, v version, conf criConfig) {
	folder := containerdHosts
	if roots := conf.roots(); len(roots) > 0 {
		folder = roots[0]
	}
	name, fresh, number := c.config, !conf.exists || conf.empty, 2
	section := splice.SectionV2
	switch {
	case fresh:
	case conf.version < 2:
		c.refuse(&problem.Problem{Path: name, Line: 1, Text: "has no version, or version 1, which containerd 2 does not take any more",
			Hint: "have containerd write it anew: containerd config migrate"})
		return
	case conf.version > 2:
		section, number = splice.SectionV3, conf.version
	}
	// What is read after a drop-in of ours would win over it.
	later := conf.pathIn != "" && conf.pathIn != c.config && path.Base(conf.pathIn) != dropIn
	if pattern := c.glob(conf.imports); pattern != "" && v.atLeast(2, 0) && !later {
		name, fresh = path.Join(path.Dir(pattern), dropIn), true
	} else if conf.pathIn != "" {
		name, section = conf.pathIn, conf.section
	} else if conf.criIn != "" && !v.atLeast(2, 0) {
		name = conf.criIn
	}
	before := len(c.out.Changes)
	c.set(edit{
		engine: Containerd, path: name, kind: configFile, state: state,
		why: "CRI looks at hosts.toml files only where config_path names their folder",
		add: func(base []byte) ([]byte, error) {
			if fresh && len(base) == 0 {
				return splice.NewConfig(number, section, folder), nil
			} else if fresh && name == c.config {
				return nil, &problem.Problem{Path: name, Text: "has nothing but comments", Hint: `write "version = 2" into it, or remove it, and run again`}
			}
			return splice.SetConfigPath(name, base, section, folder)
		},
		settled: func([]byte) bool { return false },
	})
	c.out.restart = c.out.restart || len(c.out.Changes) > before
}

// glob is the first of imports that a file of ours would match.
func (c *containerd) glob(imports []string) string {
	for _, pattern := range imports {
		if !path.IsAbs(pattern) {
			pattern = path.Join(path.Dir(c.config), pattern)
		}
		if ok, err := path.Match(path.Base(pattern), dropIn); ok && err == nil && c.tree.IsDir(path.Dir(pattern)) {
			return pattern
		}
	}
	return ""
}

// warnOfSecondRoot tells of registries that only a later folder of a list knows:
// CRI will not look there.
func (c *containerd) warnOfSecondRoot(state *State, conf criConfig) {
	roots := conf.roots()
	if conf.path == "" {
		roots = []string{containerdHosts, dockerHosts} // what 2.2 and later have built in
	}
	for _, root := range roots[min(1, len(roots)):] {
		list, err := c.tree.Names(root)
		if err != nil {
			c.refuse(err)
			continue
		}
		var only []string
		for _, item := range list {
			if !c.tree.IsDir(path.Join(roots[0], item.Name())) && !slices.Contains(c.want.Registries, item.Name()) {
				only = append(only, item.Name())
			}
		}
		if len(only) > 0 {
			state.note(fmt.Sprintf("with config_path = %q CRI does not look into %s, which alone has %s; copy what CRI needs of it", roots[0], root, strings.Join(only, ", ")))
		}
	}
}
