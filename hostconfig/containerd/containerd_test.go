package containerd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/hostconfig/socket"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/hostconfig/version"
)

const (
	criV2 = "[plugins.\"io.containerd.grpc.v1.cri\".registry]"
	criV3 = "[plugins.\"io.containerd.cri.v1.images\".registry]"
	// runcV2 is what 1.x lost to a drop-in (k0s#6547).
	runcV2 = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  SystemdCgroup = true # mine\n"
)

// What is read in containerd's files is what it says itself, whichever version this machine has.
func TestReadingAgreesWithContainerd(t *testing.T) {
	program, err := exec.LookPath("containerd")
	if err != nil {
		t.Skip("needs a containerd; test/setup.sh installs one")
	}
	out, err := exec.CommandContext(t.Context(), program, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	said := string(out)
	v := version.Parse(said)
	set := func(section, folder string) string {
		return strings.Replace(section, "]\n", "]", 1) + "\nconfig_path = \"" + folder + "\"\n"
	}
	v2, v3 := "version = 2\n", "version = 3\n"
	for name, test := range map[string]struct {
		files map[string]string
		only2 bool // what 1.x does not start with
	}{
		"unset":                     {map[string]string{"main": v2}, false},
		"one":                       {map[string]string{"main": v2 + set(criV2, "/srv/a")}, false},
		"a list":                    {map[string]string{"main": v2 + set(criV2, "/srv/a:/srv/b")}, false},
		"overridden":                {map[string]string{"main": v2 + "imports = ['d/*.toml']\n" + set(criV2, "/srv/a"), "d/x.toml": v2 + set(criV2, "/srv/b")}, false},
		"emptied":                   {map[string]string{"main": v2 + "imports = ['d/*.toml']\n" + set(criV2, "/srv/a"), "d/x.toml": v2 + set(criV2, "")}, false},
		"hidden":                    {map[string]string{"main": v2 + "imports = ['d/*.toml']\n" + set(criV2, "/srv/a"), "d/x.toml": v2 + runcV2}, false},
		"not imported":              {map[string]string{"main": v2 + set(criV2, "/srv/a"), "conf.d/x.toml": v2 + set(criV2, "/srv/b")}, false},
		"imported by an import":     {map[string]string{"main": v2 + "imports = ['d/*.toml']\n", "d/x.toml": v2 + "imports = ['../y.toml']\n", "y.toml": v2 + set(criV2, "/srv/b")}, false},
		"folders by a pattern":      {map[string]string{"main": v2 + "imports = ['*/y.toml']\n", "d/y.toml": v2 + set(criV2, "/srv/b")}, false},
		"two imports, in order":     {map[string]string{"main": v2 + "imports = ['z.toml', 'a.toml']\n", "a.toml": v2 + set(criV2, "/srv/a"), "z.toml": v2 + set(criV2, "/srv/z")}, false},
		"a loop":                    {map[string]string{"main": v2 + "imports = ['a.toml']\n", "a.toml": v2 + "imports = ['main']\n" + set(criV2, "/srv/a")}, false},
		"nothing for a pattern":     {map[string]string{"main": v2 + "imports = ['gone/*.toml']\n" + set(criV2, "/srv/a")}, false},
		"off":                       {map[string]string{"main": v2 + "disabled_plugins = ['io.containerd.grpc.v1.cri']\n"}, false},
		"off in an import":          {map[string]string{"main": v2 + "imports = ['a.toml']\n", "a.toml": v2 + "disabled_plugins = ['io.containerd.grpc.v1.cri']\n"}, false},
		"version 3":                 {map[string]string{"main": v3 + set(criV3, "/srv/a")}, true},
		"version 3 imports 2":       {map[string]string{"main": v3 + "imports = ['a.toml']\n" + set(criV3, "/srv/a"), "a.toml": v2 + set(criV2, "/srv/b")}, true},
		"version 2 imports 3":       {map[string]string{"main": v2 + "imports = ['a.toml']\n" + set(criV2, "/srv/a"), "a.toml": v3 + set(criV3, "/srv/b")}, true},
		"a drop-in of sidemirror's": {map[string]string{"main": v3 + "imports = ['d/*.toml']\n" + set(criV3, "/srv/a:/srv/b"), "d/99-sidemirror.toml": string(splice.NewConfig(3, splice.SectionV3, "/srv/a"))}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if test.only2 && !v.AtLeast(2, 0) {
				return
			}
			dir, err := os.MkdirTemp("/run", "sm-config-") // where only root can make files
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			for name, text := range test.files {
				at := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			tree, err := hostfs.Open("/")
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			main := filepath.Join(dir, "main")
			ours, err := readConfig(tree, main, v)
			if err != nil {
				t.Fatal(err)
			}
			text, err := exec.CommandContext(t.Context(), program, "--config", main, "config", "dump").Output()
			if err != nil {
				t.Fatal(err)
			}
			var dump config
			if _, err := dump.add("dump", text, true); err != nil {
				t.Fatal(err)
			}
			if dump.path != ours.path || dump.disabled != ours.disabled {
				t.Errorf("%s says %q (CRI off: %v), read %q (%v)", said, dump.path, dump.disabled, ours.path, ours.disabled)
			}
		})
	}
}

func TestOnlyTheHostsOwnContainerdIsAccepted(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want bool
	}{
		"own":                  {[]string{"/usr/bin/containerd"}, true},
		"own, with a config":   {[]string{"/usr/bin/containerd", "--config", "/etc/mine.toml"}, true},
		"started by dockerd":   {[]string{"containerd", "--config", "/var/run/docker/containerd/containerd.toml"}, false},
		"of k3s":               {[]string{"containerd", "-c", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"}, false},
		"of microk8s":          {[]string{"containerd", "--config=/var/snap/microk8s/current/args/containerd.toml"}, false},
		"of RKE2, other order": {[]string{"containerd", "--log-level", "debug", "-c=/var/lib/rancher/rke2/agent/etc/containerd/config.toml"}, false},
	} {
		if got := Query.Accept(process.Process{Args: test.args}); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestPluginsOfTheIntrospectionService(t *testing.T) {
	pair := func(key, value string) []byte {
		return socket.Field(5, append(socket.Field(1, []byte(key)), socket.Field(2, []byte(value))...))
	}
	plugin := func(kind, id string, exports ...[]byte) []byte {
		out := append(socket.Field(1, []byte(kind)), socket.Field(2, []byte(id))...)
		for _, e := range exports {
			out = append(out, e...)
		}
		return socket.Field(1, append(out, 0x38, 0x01)) // and a field that is no bytes
	}
	for name, test := range map[string]struct {
		reply []byte
		path  string
		known bool
	}{
		"set":           {plugin("io.containerd.cri.v1", "images", pair("DiscardUnpackedLayers", "false"), pair("RegistryConfigPath", "/a:/b")), "/a:/b", true},
		"empty":         {plugin("io.containerd.cri.v1", "images", pair("RegistryConfigPath", "")), "", true},
		"not exported":  {plugin("io.containerd.cri.v1", "images"), "", false},
		"other plugins": {append(plugin("io.containerd.cri.v1", "runtime", pair("RegistryConfigPath", "/x")), plugin("io.containerd.cri.v1", "images", pair("RegistryConfigPath", "/a"))...), "/a", true},
		"none":          {nil, "", false},
		"cut off":       {plugin("io.containerd.cri.v1", "images", pair("RegistryConfigPath", "/a"))[:30], "", false},
	} {
		if got := readPlugins(test.reply); got.ConfigPath != test.path || got.KnowsConfigPath != test.known {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func FuzzPlugins(f *testing.F) {
	f.Add(socket.Field(1, socket.Field(1, []byte("x"))))
	f.Fuzz(func(_ *testing.T, reply []byte) { readPlugins(reply) })
}
