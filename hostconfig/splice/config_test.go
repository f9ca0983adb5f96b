package splice

import (
	"reflect"
	"strings"
	"testing"
)

const (
	criV2  = `[plugins."io.containerd.grpc.v1.cri".registry]`
	runcV2 = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  SystemdCgroup = true\n"
)

func TestConfigPathIsRemovedByItsMark(t *testing.T) {
	for _, text := range []string{
		"version = 2\n" + criV2 + "\n  config_path = '' # why\n" + runcV2,
		"version = 2\n" + criV2 + "\n" + runcV2,
		"version = 2\n" + runcV2,
		"version = 2",
		"version = 2\r\n" + criV2,
	} {
		out, err := SetConfigPath("f", []byte(text), SectionV2, certsFolder)
		if err != nil {
			t.Fatal(err)
		}
		r, err := RemoveConfigPath("f", out)
		if err != nil || !r.Found || string(r.Rest) != text {
			t.Errorf("%q became %q: %v, %v", text, r.Rest, r.Found, err)
		}
		broken := string(out) + "\n[broken\n"
		r, err = RemoveConfigPath("f", []byte(broken))
		if err != nil || !r.Found || strings.Contains(string(r.Rest), "sidemirror") || !strings.HasSuffix(string(r.Rest), "\n[broken\n") {
			t.Errorf("%q became %q: %v, %v", broken, r.Rest, r.Found, err)
		}
	}
}

func TestUsersEditsOfConfigTOMLStay(t *testing.T) {
	fresh := string(NewConfig(2, SectionV2, certsFolder))
	added, err := SetConfigPath("f", []byte("version = 2\n"), SectionV2, certsFolder)
	if err != nil {
		t.Fatal(err)
	}
	inTable, err := SetConfigPath("f", []byte(criV2+"\n  headers.x = \"y\"\n"), SectionV2, certsFolder)
	if err != nil {
		t.Fatal(err)
	}
	const table = criV2 + "\n  config_path = \"/etc/containerd/certs.d\"\n"
	for name, test := range map[string]struct {
		text, rest  string
		found, bare bool
	}{
		"file of sidemirror's":         {fresh, "version = 2\n\n" + table, true, true},
		"setting added to it":          {fresh + "  headers.x = \"y\"\n", "version = 2\n\n" + table + "  headers.x = \"y\"\n", true, false},
		"its mark below a setting":     {"root = \"/r\"\n" + fresh, "root = \"/r\"\nversion = 2\n\n" + table, true, false},
		"table added below":            {string(added) + "[debug]\n  level = \"info\"\n", "version = 2\n\n[debug]\n  level = \"info\"\n", true, false},
		"table added after a line":     {string(added) + "\n[debug]\n", "version = 2\n\n[debug]\n", true, false},
		"sub-table added":              {string(added) + "[plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\n", "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\n", true, false},
		"setting added to the table":   {string(added) + "  headers.x = \"y\"\n", "version = 2\n\n" + criV2 + "\n  headers.x = \"y\"\n", true, false},
		"setting of an existing table": {string(inTable), criV2 + "\n  headers.x = \"y\"\n", true, false},
		"the setting removed":          {"version = 2\n\n" + settingMark + "\n" + criV2 + "\n", "version = 2\n\n" + settingMark + "\n" + criV2 + "\n", false, false},
		"a user's setting":             {"# mine\n" + table, "# mine\n" + table, false, false},
		"a user's setting after mine":  {criV2 + "\n  # mine\n  config_path = \"/x\"\n", criV2 + "\n  # mine\n  config_path = \"/x\"\n", false, false},
		"broken, without an entry":     {"[broken\n" + table, "[broken\n" + table, false, false},
		"broken, a setting moved":      {"[broken\n" + settingMark + "\n\n" + table, "", false, false},
	} {
		r, err := RemoveConfigPath("f", []byte(test.text))
		if test.rest == "" {
			refused(t, name, r.Rest, err, 1, "not valid TOML")
		} else if err != nil || string(r.Rest) != test.rest || r.Found != test.found || r.Bare != test.bare {
			t.Errorf("%s: found %v, bare %v, %v, got\n%s\nwant\n%s", name, r.Found, r.Bare, err, r.Rest, test.rest)
		}
	}
}

func TestConfigInAnotherShapeIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		line int
		says string
	}{
		"inline table":    {"version = 2\nplugins = {\"io.containerd.grpc.v1.cri\" = {registry = {}}}\n", 2, "has plugins as a value"},
		"inline registry": {"version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nregistry = {config_path = \"\"}\n", 3, "as a value"},
		"array":           {"[[plugins]]\n", 1, "has plugins as a value or an array"},
		"dotted key":      {"version = 2\nplugins.\"io.containerd.grpc.v1.cri\".registry.headers = {}\n", 2, "as a dotted key"},
		"number":          {"version = 2\n" + criV2 + "\nconfig_path = 5\n", 3, "no string on one line"},
		"two lines":       {"version = 2\n" + criV2 + "\nconfig_path = \"\"\"\n\"\"\"\n", 3, "no string on one line"},
		"not valid":       {"version = 2\n[plugins\n", 2, "not valid TOML"},
	} {
		out, err := SetConfigPath("f", []byte(test.text), SectionV2, certsFolder)
		refused(t, name, out, err, test.line, test.says)
	}
	for text, line := range map[string]int{"version = \"two\"\n": 1, "version = 2\n\nimports = 5\n": 3} {
		_, err := ReadConfig("f", []byte(text), Version{})
		refused(t, text, nil, err, line, "another type")
	}
}

func TestConfigPathGoesIntoTheSectionThatIsThere(t *testing.T) {
	const line = settingMark + "\nconfig_path = \"/etc/containerd/certs.d\"\n"
	for before, after := range map[string]string{
		criV2 + "\nheaders.x = \"y\"\n":                 criV2 + "\n" + line + "headers.x = \"y\"\n",
		criV2:                                           criV2 + "\n" + strings.TrimSuffix(line, "\n"),
		"[plugins]\n" + criV2 + "\n" + runcV2:           "[plugins]\n" + criV2 + "\n" + line + runcV2,
		criV2 + "\n  config_path = \"\" # x\n":          criV2 + "\n" + settingMark + "\n" + disabled + "  config_path = \"\" # x\n  config_path = \"/etc/containerd/certs.d\"\n",
		"plugins.\"io.containerd.grpc.v1.cri\".x = 1\n": "plugins.\"io.containerd.grpc.v1.cri\".x = 1\n\n" + settingMark + "\n" + criV2 + "\n  config_path = \"/etc/containerd/certs.d\"\n",
		"plugins.\"io.containerd.grpc.v1.cri\".registry.config_path = \"\"\n": settingMark + "\n" + disabled + "plugins.\"io.containerd.grpc.v1.cri\".registry.config_path = \"\"\nplugins.\"io.containerd.grpc.v1.cri\".registry.config_path = \"/etc/containerd/certs.d\"\n",
	} {
		out, err := SetConfigPath("f", []byte(before), SectionV2, certsFolder)
		if err != nil || string(out) != after {
			t.Errorf("%q: %v, got\n%s\nwant\n%s", before, err, out, after)
		}
	}
}

func TestConfigWithoutAVersionIsVersionOne(t *testing.T) {
	for text, want := range map[string]int{"": 1, "[grpc]\n": 1, "version = 1\n": 1, "version = 2\n": 2, "version = 3\n": 3} {
		if c, err := ReadConfig("f", []byte(text), Version{}); err != nil || c.Version != want {
			t.Errorf("%q: version %d, %v", text, c.Version, err)
		}
	}
}

// Found with containerd 1.6 and 1.7: with such a setting next to config_path CRI does not start.
func TestSettingsThatContainerdRefusesNextToConfigPath(t *testing.T) {
	const v2 = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"\"\n"
	for name, test := range map[string]struct {
		text   string
		v1, v2 []Setting
	}{
		"nothing":       {v2, nil, nil},
		"mirrors":       {v2 + "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n", []Setting{{"registry.mirrors", 4}}, []Setting{{"registry.mirrors", 4}}},
		"empty mirrors": {v2 + "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors]\n", nil, nil},
		"tls":           {v2 + "\n[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"r.example\".tls]\ninsecure_skip_verify = true\n", []Setting{{"registry.configs.r.example.tls", 5}}, nil},
		"auth":          {v2 + "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"r.example\".auth]\nusername = \"u\"\n", nil, nil},
		"inline":        {"[plugins.cri]\nregistry = {mirrors = {\"docker.io\" = {}}, configs = {r = {tls = {}}}}\n", []Setting{{"registry.mirrors", 2}, {"registry.configs.r.tls", 2}}, []Setting{{"registry.mirrors", 2}}},
	} {
		for v, want := range map[Version][]Setting{{1, 6}: test.v1, {1, 7}: test.v1, {}: test.v1, {2, 1}: test.v2} {
			c, err := ReadConfig("f", []byte(test.text), v)
			if err != nil || !reflect.DeepEqual(c.Conflicts, want) {
				t.Errorf("%s, %v: %+v, %v, want %+v", name, v, c.Conflicts, err, want)
			}
		}
	}
}

// containerd 2.1 to 2.4, internal/cri/config, CheckLocalImagePullConfigs, and plugins/cri/images,
// migrateConfig.
func TestSettingsThatMakeCRIPullWithoutTheTransferService(t *testing.T) {
	const v3, cri = "[plugins.\"io.containerd.cri.v1.images\"]\n", "[plugins.\"io.containerd.grpc.v1.cri\"]\n"
	const runtimes = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n"
	for text, want := range map[string]string{
		v3:                                                                     "",
		v3 + "use_local_image_pull = true\n":                                   "use_local_image_pull",
		v3 + "use_local_image_pull = false\n":                                  "",
		v3 + "max_concurrent_downloads = 3\n":                                  "",
		v3 + "max_concurrent_downloads = 8\n":                                  "max_concurrent_downloads",
		v3 + "disable_snapshot_annotations = true\n":                           "",
		v3 + "disable_snapshot_annotations = false\n":                          "disable_snapshot_annotations",
		v3 + "discard_unpacked_layers = true\n":                                "discard_unpacked_layers",
		v3 + "image_pull_with_sync_fs = true\n":                                "image_pull_with_sync_fs",
		v3 + "registry.configs.\"r.example\".auth.username = \"u\"\n":          "registry.configs",
		v3 + "registry.auths.\"https://r.example\".username = \"u\"\n":         "registry.auths",
		v3 + "registry.mirrors.\"docker.io\".endpoint = []\n":                  "registry.mirrors",
		cri + "use_local_image_pull = true\n":                                  "",
		cri + "max_concurrent_downloads = 8\nimage_pull_with_sync_fs = true\n": "max_concurrent_downloads image_pull_with_sync_fs",
		runtimes + "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndisable_snapshot_annotations = true\n":  "",
		runtimes + "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndisable_snapshot_annotations = false\n": "containerd.disable_snapshot_annotations",
		cri + "containerd.discard_unpacked_layers = true\n":                                                     "",
		cri + "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndiscard_unpacked_layers = true\n":            "",
		runtimes + "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndiscard_unpacked_layers = true\n":       "containerd.discard_unpacked_layers",
		"[plugins.cri]\nmax_concurrent_downloads = 10\n":                                                        "max_concurrent_downloads",
	} {
		c, err := ReadConfig("f", []byte(text), Version{2, 2})
		var names []string
		for _, s := range c.LocalPull {
			names = append(names, s.Name)
			if s.Line == 0 {
				t.Errorf("%q: %s has no line", text, s.Name)
			}
		}
		if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestReadConfigFindsWhatMattersToCRI(t *testing.T) {
	for text, disabled := range map[string]bool{"": false, "\"x\"": false, "\"x\", \"cri\"": true, "\"io.containerd.grpc.v1.cri\"": true, "\"io.containerd.cri.v1.images\"": true} {
		if c, err := ReadConfig("f", []byte("disabled_plugins = ["+text+"]\n"), Version{}); err != nil || c.Disabled != disabled || c.Empty || c.CRI {
			t.Errorf("%s: %+v, %v", text, c, err)
		}
	}
	if c, err := ReadConfig("f", []byte("# nothing\n"), Version{}); err != nil || !c.Empty {
		t.Errorf("a file of comments: %+v, %v", c, err)
	}
	c, err := ReadConfig("f", []byte("version = 3\nimports = [\"conf.d/*.toml\"]\ndisabled_plugins = [\"io.containerd.cri.v1.images\"]\n\n"+
		"[plugins.\"io.containerd.server.v1.grpc\"]\naddress = \"/run/c.sock\"\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/a:/b'\n"), Version{2, 4})
	want := Config{Version: 3, Imports: []string{"conf.d/*.toml"}, Disabled: true, Address: "/run/c.sock", CRI: true, Path: "/a:/b", PathSet: true, Section: SectionV3, Line: 8}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, %v\nwant %+v", c, err, want)
	}
}
