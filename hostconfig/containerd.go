package hostconfig

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

const (
	containerdFolder = "/etc/containerd"
	containerdConfig = containerdFolder + "/config.toml"
	containerdHosts  = containerdFolder + "/certs.d"
	maxImports       = 64
)

// The sections that hold config_path, by the version of the configuration.
var (
	sectionV1 = []string{"plugins", "cri", "registry"}
	sectionV2 = []string{"plugins", "io.containerd.grpc.v1.cri", "registry"}
	sectionV3 = []string{"plugins", "io.containerd.cri.v1.images", "registry"}
)

type containerd struct{ *planner }

func (*containerd) name() string       { return Containerd }
func (*containerd) folder() string     { return containerdFolder }
func (*containerd) binary() string     { return "containerd" }
func (*containerd) packages() []string { return []string{"containerd.io", "containerd"} }

// plan writes hosts.toml files, which need no restart, into the folder that
// config_path names. Where it names none, CRI (Kubernetes) does not look at them, and
// only a change of config.toml and a restart can mend that: see planPath.
func (c *containerd) plan(state *State) {
	conf, err := c.effective()
	root := containerdHosts
	if err != nil {
		c.refuse(err)
	} else if roots := conf.roots(); len(roots) > 0 {
		root = roots[0]
	}
	var keep []string
	for _, registry := range c.registries() {
		if name, _ := c.setHosts(Containerd, state, root, registry, mirror{url: c.want.Mirror}); name != "" {
			keep = append(keep, name)
		}
	}
	c.unsetHosts(Containerd, []string{root}, keep, nil)
	if err == nil {
		c.planPath(state, conf)
	}
}

func (c *containerd) undo() {
	roots := []string{containerdHosts}
	if conf, err := c.effective(); err == nil && len(conf.roots()) > 0 {
		roots = conf.roots()
	}
	c.unsetHosts(Containerd, roots, nil, nil)
	names := c.recorded(Containerd, configFile)
	if c.marked(containerdConfig) && !slices.Contains(names, containerdConfig) {
		names = append(names, containerdConfig)
	}
	for _, name := range names {
		c.unset(Containerd, name, configFile, "taking config_path out; containerd forgets it when it is next started", "")
	}
}

// criConfig is what matters to us of containerd's configuration.
type criConfig struct {
	exists  bool
	empty   bool // a file that says nothing at all
	version int  // of the main file; 0 where it does not say

	imports  []string
	path     string // config_path in force; "" where unset
	pathIn   string // the file that sets it
	criIn    string // the last file that has anything about CRI
	mirrors  string // the file that has registry.mirrors, "" where none has
	disabled bool   // CRI is off
	local    bool   // CRI pulls without the transfer service, which lists are lost on
}

// roots are the folders of config_path.
func (c criConfig) roots() []string {
	return slices.DeleteFunc(strings.Split(c.path, ":"), func(s string) bool { return !path.IsAbs(s) })
}

// effective reads config.toml and what it imports. conf.d is not read unless
// something imports it.
func (c *containerd) effective() (criConfig, error) {
	var conf criConfig
	main, err := c.tree.read(containerdConfig)
	if err != nil || !main.exists() {
		return conf, err
	}
	conf.exists = true
	if err := conf.add(main.path, main.data, true); err != nil {
		return conf, err
	}
	for _, name := range c.imported(conf.imports) {
		f, err := c.tree.read(name)
		if err != nil || !f.exists() {
			return conf, err
		}
		if err := conf.add(name, f.data, false); err != nil {
			return conf, err
		}
	}
	return conf, nil
}

// imported are the files that imports name, in the order in which they are read.
func (c *containerd) imported(imports []string) []string {
	var names []string
	for _, pattern := range imports {
		if !path.IsAbs(pattern) {
			pattern = path.Join(containerdFolder, pattern)
		}
		list, err := c.tree.names(path.Dir(pattern))
		if err != nil {
			continue
		}
		for _, item := range list {
			if ok, err := path.Match(path.Base(pattern), item.Name()); ok && err == nil && len(names) < maxImports {
				names = append(names, path.Join(path.Dir(pattern), item.Name()))
			}
		}
	}
	return names
}

// add reads one file over what those before it said.
func (c *criConfig) add(name string, data []byte, main bool) error {
	var values struct {
		Version  int            `toml:"version"`
		Imports  []string       `toml:"imports"`
		Disabled []string       `toml:"disabled_plugins"`
		Plugins  map[string]any `toml:"plugins"`
	}
	d, err := parseTOML(name, data)
	if err != nil {
		return err
	}
	if err := toml.Unmarshal(data, &values); err != nil {
		return &refusal{path: name, reason: "is not what containerd takes: " + err.Error(), mend: "see containerd config default"}
	}
	if main {
		c.version, c.imports, c.empty = values.Version, values.Imports, len(d.exprs) == 0
	}
	for _, plugin := range values.Disabled {
		if plugin == "cri" || plugin == sectionV2[1] || plugin == sectionV3[1] {
			c.disabled = true
		}
	}
	for _, section := range [][]string{sectionV1, sectionV2, sectionV3} {
		plugin, ok := values.Plugins[section[1]].(map[string]any)
		if ok {
			c.criIn = name
		}
		c.local = c.local || plugin["use_local_image_pull"] == true || plugin["discard_unpacked_layers"] == true
		if containerd, ok := plugin["containerd"].(map[string]any); ok && containerd["discard_unpacked_layers"] == true {
			c.local = true
		}
		registry, _ := plugin["registry"].(map[string]any)
		if mirrors, _ := registry["mirrors"].(map[string]any); len(mirrors) > 0 {
			c.mirrors = name
		}
		if text, ok := registry["config_path"].(string); ok {
			c.path, c.pathIn = text, name
		}
	}
	return nil
}

// active reports whether CRI looks at the first folder of config_path, and why not.
func (c criConfig) active(v version) (bool, string) {
	lists := v.atLeast(2, 1) || v.unknown() // the transfer service takes a list for one folder
	switch {
	case c.path == "" && v.atLeast(2, 2) && !c.local:
		return false, "config_path is empty, and the built-in list of two folders is taken for one (containerd #12636)"
	case c.path == "" && v.atLeast(2, 2):
		return true, ""
	case c.path == "":
		return false, "config_path is empty"
	case strings.Contains(c.path, ":") && lists && !c.local:
		return false, "config_path is a list, which is taken for one folder (containerd #12636)"
	}
	return true, ""
}

// planPath sees to config_path: it is reported, and set where that is asked for.
func (c *containerd) planPath(state *State, conf criConfig) {
	v := parseVersion(state.Version)
	if conf.disabled {
		state.note("CRI is switched off in " + containerdConfig + ": config_path does not matter; nerdctl reads " + containerdHosts + ", ctr takes it by --hosts-dir")
		return
	}
	active, why := conf.active(v)
	switch {
	case conf.mirrors != "":
		state.note(fmt.Sprintf("mirror inactive for CRI: %s has registry.mirrors, beside which containerd refuses config_path and does without CRI; move them to hosts.toml files, remove the section and run again", conf.mirrors))
	case active:
	case !c.want.RestartContainerd:
		state.note("mirror inactive for CRI, because " + why + "; to mend it: sidemirror apply --restart-containerd (containers go on running)")
	default:
		c.warnOfSecondRoot(state, conf)
		c.setPath(v, conf)
	}
}
