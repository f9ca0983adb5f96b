package hostconfig

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// criConfig is what matters to us of containerd's configuration.
type criConfig struct {
	exists  bool
	empty   bool // a file that says nothing at all
	version int  // of the main file; 0 where it does not say

	// replaces says that of two files that have something about CRI the later one
	// counts alone, as up to 1.7.
	replaces bool

	imports  []string // of the main file
	path     string   // config_path in force; "" where unset
	pathIn   string   // the file that sets it
	section  []string // in which it does
	criIn    string   // the last file that has anything about CRI
	mirrors  string   // the file that has registry.mirrors, "" where none has
	disabled bool     // CRI is off
	address  string   // of containerd's socket; "" where it does not say
	local    bool     // CRI pulls without the transfer service, which lists are lost on
	sum      string   // of all files
	doubtful bool     // containerd reads them in another way
}

// roots are the folders of config_path.
func (c criConfig) roots() []string {
	return slices.DeleteFunc(strings.Split(c.path, ":"), func(s string) bool { return !path.IsAbs(s) })
}

// maxImports bounds the files that one configuration is made of.
const maxImports = 64

// effective reads config.toml and what it imports, and what that imports, in containerd's
// order (cmd/containerd/server/config, LoadConfig). conf.d is not read unless something
// imports it, although config dump lists it from 2.3 on.
func (c *containerd) effective(v version) (criConfig, error) {
	conf := criConfig{replaces: !v.unknown() && !v.atLeast(2, 0)}
	sum := sha256.New()
	seen := make(map[string]bool)
	for pending := []string{c.config}; len(pending) > 0; pending = pending[1:] {
		name := pending[0]
		if seen[name] {
			continue
		}
		if seen[name] = true; len(seen) > maxImports {
			return conf, &problem.Problem{Path: c.config, Text: fmt.Sprintf("imports more than %d files", maxImports), Hint: "look what they are"}
		}
		f, err := c.tree.Read(name)
		switch {
		case err != nil:
			return conf, err
		case !f.Exists() && name == c.config:
			return conf, nil
		case !f.Exists():
			return conf, &problem.Problem{Path: c.config, Text: "imports " + problem.QuotePath(name) + ", which does not exist, so that containerd would not start", Hint: "make that file, or take it out of imports"}
		}
		fmt.Fprintf(sum, "%q %x\n", name, sha256.Sum256(f.Data))
		imports, err := conf.add(name, f.Data, name == c.config)
		if err != nil {
			return conf, err
		}
		for _, pattern := range imports {
			list, err := c.imported(name, pattern, v)
			if err != nil {
				return conf, err
			}
			pending = append(pending, list...)
		}
	}
	conf.exists, conf.sum = true, hex.EncodeToString(sum.Sum(nil))
	return conf, nil
}

// imported are the files that one of a file's imports names. Only a star makes it a pattern;
// up to 1.6 such a one is relative to the folder that containerd was started in.
func (c *containerd) imported(file, pattern string, v version) ([]string, error) {
	star := strings.Contains(pattern, "*")
	from := path.Dir(file)
	if star && !v.unknown() && !v.atLeast(1, 7) {
		from = "/"
	}
	if pattern = path.Clean(pattern); !path.IsAbs(pattern) {
		pattern = path.Join(from, pattern)
	}
	if !star {
		return []string{pattern}, nil
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, &problem.Problem{Path: file, Text: fmt.Sprintf("imports %q, which is no pattern, so that containerd would not start", pattern), Hint: "mend it"}
	}
	return c.tree.Glob(pattern)
}

// add reads one file over what those before it said.
func (c *criConfig) add(name string, data []byte, main bool) (imports []string, err error) {
	var values struct {
		Version  int            `toml:"version"`
		Imports  []string       `toml:"imports"`
		Disabled []string       `toml:"disabled_plugins"`
		Plugins  map[string]any `toml:"plugins"`
		GRPC     struct {
			Address string `toml:"address"`
		} `toml:"grpc"`
	}
	file, err := splice.ReadConfig(name, data, splice.Version{})
	if err != nil {
		return nil, err
	}
	if err := toml.Unmarshal(data, &values); err != nil {
		return nil, &problem.Problem{Path: name, Text: "is not what containerd takes: " + err.Error(), Hint: "see containerd config default"}
	}
	if main {
		c.version, c.imports, c.empty = values.Version, values.Imports, file.Empty
	}
	server, _ := values.Plugins["io.containerd.server.v1.grpc"].(map[string]any) // from version 4 on
	address, _ := server["address"].(string)
	c.address = cmp.Or(address, values.GRPC.Address, c.address)
	for _, plugin := range values.Disabled {
		if plugin == "cri" || plugin == splice.SectionV2[1] || plugin == splice.SectionV3[1] {
			c.disabled = true
		}
	}
	for _, section := range [][]string{splice.SectionV1, splice.SectionV2, splice.SectionV3} {
		plugin, ok := values.Plugins[section[1]].(map[string]any)
		if !ok {
			continue
		}
		if c.criIn != "" && c.criIn != name && c.replaces {
			c.path, c.pathIn, c.section, c.mirrors, c.local = "", "", nil, "", false
		}
		c.criIn = name
		c.local = c.local || plugin["use_local_image_pull"] == true || plugin["discard_unpacked_layers"] == true
		if containerd, ok := plugin["containerd"].(map[string]any); ok && containerd["discard_unpacked_layers"] == true {
			c.local = true
		}
		registry, _ := plugin["registry"].(map[string]any)
		if mirrors, _ := registry["mirrors"].(map[string]any); len(mirrors) > 0 {
			c.mirrors = name
		}
		if text, ok := registry["config_path"].(string); ok {
			c.path, c.pathIn, c.section = text, name, section
		}
	}
	return values.Imports, nil
}
