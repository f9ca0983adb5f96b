package splice

import (
	"cmp"
	"maps"
	"slices"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Config is what one file of a containerd configuration says about CRI's registries.
type Config struct {
	Version  int // 1 if the file has none, as containerd reads it
	Empty    bool
	Imports  []string
	Disabled bool   // CRI is off
	Address  string // of containerd's socket; empty if the file has none
	CRI      bool   // the file has a section of CRI's

	// Path is the value of config_path, if PathSet; Section is where, and Line is its line.
	Path    string
	PathSet bool
	Section []string
	Line    int

	// Conflicts are settings next to which containerd refuses config_path, so that CRI does not load.
	Conflicts []Setting

	// LocalPull are settings because of which CRI of containerd 2.1 and later pulls without the
	// transfer service. Such a pull understands a config_path with several folders.
	LocalPull []Setting
}

// Setting is one setting of a file.
type Setting struct {
	Name string // from the plugin's section on: "registry.mirrors"
	Line int
}

// LocalPullHint tells what else changes with use_local_image_pull, for every text that recommends
// the setting.
const LocalPullHint = "use_local_image_pull = true also switches image verifiers off (containerd issue 12790)"

// ReadConfig parses one file of a containerd configuration for containerd v. It does not read the
// file's imports.
func ReadConfig(name string, data []byte, v Version) (Config, error) {
	d, err := parseTOML(name, data)
	if err != nil {
		return Config{}, err
	}
	var values struct {
		Version  int            `toml:"version"`
		Imports  []string       `toml:"imports"`
		Disabled []string       `toml:"disabled_plugins"`
		Plugins  map[string]any `toml:"plugins"`
		GRPC     struct {
			Address string `toml:"address"`
		} `toml:"grpc"`
	}
	if err := toml.Unmarshal(data, &values); err != nil {
		return Config{}, refuse("config-toml-value", name, lineOfError(err), "compare it with: containerd config default", "has a value of another type than containerd expects: %v", err)
	}
	c := Config{Version: max(values.Version, 1), Empty: len(d.exprs) == 0, Imports: values.Imports}
	server := table(values.Plugins, "io.containerd.server.v1.grpc") // from version 4 on
	address, _ := server["address"].(string)
	c.Address = cmp.Or(address, values.GRPC.Address)
	for _, plugin := range values.Disabled {
		c.Disabled = c.Disabled || plugin == "cri" || plugin == SectionV2[1] || plugin == SectionV3[1]
	}
	for _, section := range [][]string{SectionV1, SectionV2, SectionV3} {
		if plugin, ok := values.Plugins[section[1]].(map[string]any); ok {
			c.CRI = true
			c.add(d, section, plugin, v)
		}
	}
	return c, nil
}

// add reads one plugin's section.
func (c *Config) add(d *document, section []string, plugin map[string]any, v Version) {
	registry := table(plugin, "registry")
	if text, ok := registry["config_path"].(string); ok {
		c.Path, c.PathSet, c.Section = text, true, section
		c.Line = d.lineOf(append(slices.Clone(section), "config_path"))
	}
	setting := func(path ...string) Setting {
		name := path[0]
		for _, part := range path[1:] {
			name += "." + part
		}
		return Setting{Name: name, Line: d.lineOf(append([]string{"plugins", section[1]}, path...))}
	}
	// containerd 1.6 and 1.7, pkg/cri/config, ValidatePluginConfig; 2.x, internal/cri/config,
	// ValidateImageConfig, which knows no tls any more.
	if len(table(registry, "mirrors")) > 0 {
		c.Conflicts = append(c.Conflicts, setting("registry", "mirrors"))
	}
	for _, host := range slices.Sorted(maps.Keys(table(registry, "configs"))) {
		config := table(table(registry, "configs"), host)
		if _, ok := config["tls"]; ok && !v.atLeast(2, 0) {
			c.Conflicts = append(c.Conflicts, setting("registry", "configs", host, "tls"))
		}
	}
	for _, path := range localPull(section, plugin) {
		c.LocalPull = append(c.LocalPull, setting(path...))
	}
}

// localPull returns the settings of a plugin's section that make CRI pull without the transfer
// service (containerd 2.1 to 2.4, internal/cri/config, CheckLocalImagePullConfigs; the list is the
// same in all of them).
func localPull(section []string, plugin map[string]any) (paths [][]string) {
	images := slices.Equal(section, SectionV3)
	has := func(found bool, path ...string) {
		if found {
			paths = append(paths, path)
		}
	}
	has(images && plugin["use_local_image_pull"] == true, "use_local_image_pull")
	if images {
		has(plugin["disable_snapshot_annotations"] == false, "disable_snapshot_annotations")
		has(plugin["discard_unpacked_layers"] == true, "discard_unpacked_layers")
	} else if containerd := table(plugin, "containerd"); containerd["runtimes"] != nil {
		// Without runtimes containerd does not carry the two over from an older version's section
		// (plugins/cri/images, migrateConfig).
		has(containerd["disable_snapshot_annotations"] == false, "containerd", "disable_snapshot_annotations")
		has(containerd["discard_unpacked_layers"] == true, "containerd", "discard_unpacked_layers")
	}
	downloads, ok := plugin["max_concurrent_downloads"].(int64)
	has(ok && downloads != 3, "max_concurrent_downloads")
	has(plugin["image_pull_with_sync_fs"] == true, "image_pull_with_sync_fs")
	for _, key := range []string{"mirrors", "configs", "auths"} {
		has(len(table(table(plugin, "registry"), key)) > 0, "registry", key)
	}
	return paths
}

// table returns the table at a key; nil if there is none.
func table(values map[string]any, key string) map[string]any {
	t, _ := values[key].(map[string]any)
	return t
}

// lineOf returns the line of the first expression at path or below it.
func (d *document) lineOf(path []string) int {
	for _, e := range d.exprs {
		at := e.path()
		if n := min(len(at), len(path)); slices.Equal(at[:n], path[:n]) && (len(at) >= len(path) || e.kind == unstable.KeyValue) {
			return d.number(e)
		}
	}
	return 0
}
