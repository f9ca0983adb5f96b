package containerd

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/hostconfig/version"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// The sections that hold config_path, by the version of the configuration.
var (
	sectionV1 = []string{"plugins", "cri", "registry"}
	sectionV2 = []string{"plugins", "io.containerd.grpc.v1.cri", "registry"}
	sectionV3 = []string{"plugins", "io.containerd.cri.v1.images", "registry"}
)

// config is what matters to sidemirror of containerd's configuration.
type config struct {
	exists  bool
	empty   bool // a file without any setting
	version int  // of the main file; 0 if it does not say

	// replaces says that of two files with a section of CRI the later one counts alone, as up to 1.7.
	replaces bool

	imports  []string // of the main file
	path     string   // config_path in force; "" if unset
	pathIn   string   // the file that sets it
	section  []string // the section in which it does
	criIn    string   // the last file that has a section of CRI
	mirrors  string   // the file that has registry.mirrors, "" if none has
	disabled bool     // CRI is off
	address  string   // of containerd's socket; "" if not set
	local    bool     // CRI pulls without the transfer service, which takes a list for one folder
	sum      string   // of all files
	doubtful bool     // containerd reads them in another way
}

// roots are the folders of config_path.
func (c config) roots() []string {
	return slices.DeleteFunc(strings.Split(c.path, ":"), func(s string) bool { return !path.IsAbs(s) })
}

// maxImports bounds the files that make up one configuration.
const maxImports = 64

// readConfig reads config.toml, what it imports, and what that imports, in containerd's order
// (cmd/containerd/server/config, LoadConfig). conf.d is not read unless a file imports it, although
// config dump lists it from 2.3 on.
func readConfig(tree *hostfs.Host, main string, v version.Version) (config, error) {
	conf := config{replaces: v.Known() && !v.AtLeast(2, 0)}
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
		f, err := tree.Read(name)
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
	var values struct {
		Version  int            `toml:"version"`
		Imports  []string       `toml:"imports"`
		Disabled []string       `toml:"disabled_plugins"`
		Plugins  map[string]any `toml:"plugins"`
		GRPC     struct {
			Address string `toml:"address"`
		} `toml:"grpc"`
	}
	empty, err := splice.CheckConfig(name, data)
	if err != nil {
		return nil, err
	}
	if err := toml.Unmarshal(data, &values); err != nil {
		return nil, &problem.Problem{Code: "containerd-config-invalid", Path: name, Text: "containerd does not take it", Err: err, Hint: "see containerd config default"}
	}
	if main {
		c.version, c.imports, c.empty = values.Version, values.Imports, empty
	}
	server, _ := values.Plugins["io.containerd.server.v1.grpc"].(map[string]any) // from version 4 on
	address, _ := server["address"].(string)
	c.address = cmp.Or(address, values.GRPC.Address, c.address)
	for _, plugin := range values.Disabled {
		if plugin == "cri" || plugin == sectionV2[1] || plugin == sectionV3[1] {
			c.disabled = true
		}
	}
	for _, section := range [][]string{sectionV1, sectionV2, sectionV3} {
		if plugin, ok := values.Plugins[section[1]].(map[string]any); ok {
			c.addCRI(name, section, plugin)
		}
	}
	return values.Imports, nil
}

// addCRI reads a section of CRI.
func (c *config) addCRI(name string, section []string, plugin map[string]any) {
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
