package splice

import (
	"bytes"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

const (
	ourURL      = "http://127.0.0.1:305"
	theirs      = "[host.\"https://mirror.corp.example\"]\n  capabilities = [\"pull\"]\n"
	ourHost     = "[host.\"http://127.0.0.1:305\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	certsFolder = "/etc/containerd/certs.d"
	criV2       = `[plugins."io.containerd.grpc.v1.cri".registry]`
	runcV2      = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  SystemdCgroup = true\n"
)

// The same holds for each splicer: whatever bytes come in, there is an error, or a file
// that holds all of them in their order, that is settled, and of which removal
// makes the first bytes again.

func FuzzHosts(f *testing.F) {
	for _, text := range []string{
		"", theirs, "server = \"x\"", "server = \"x\"\n", "\r\n", "# c\n" + theirs, "a = \"\"\"\n# \"\"\"\n[host.x]", "[host]\n\"x\" = {}",
		"[[host.x]]", "host.x.y = 1", "[ host . 'x' ] # c\r\nk = 1\r\n", "ca = \"x\"\n\n", tableMark + "\n" + theirs, FileMark + "\n" + theirs, FileMark + "\n" + ourHost,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, base []byte) {
		if r, _ := RemoveHosts("f", base, nil); r.Found {
			return
		}
		m := Hosts{URL: ourURL}
		out, err := m.Add("f", base)
		if err != nil {
			return
		}
		holds(t, base, out)
		if !m.Settled("f", out) {
			t.Errorf("not settled: %q", out)
		}
		r, err := RemoveHosts("f", out, nil)
		if r.Bare && len(base) == 0 {
			r.Rest = base
		}
		if err != nil || !r.Found || !bytes.Equal(r.Rest, base) {
			t.Errorf("%q became %q and then %q (found %v): %v", base, out, r.Rest, r.Found, err)
		}
	})
}

func FuzzDaemonJSON(f *testing.F) {
	for _, text := range []string{
		"", "{}", "{ }", "{\n}\n", `{"debug":true}`, "{\n\t\"debug\": true ,\n\t\"icc\": true\n}", `{"registry-mirrors":null}`, `{"registry-mirrors": [ ]}`,
		`{"registry-mirrors":["a"]}`, "{\"registry-mirrors\": [\n \"a\" ,\n \"b\"\n]\n}", `{"registry-mirrors": ["a"], "registry-mirrors": []}`, "\xef\xbb\xbf{}",
		"{\"debug\": \"}\\n\"}", "{\r\n\"icc\": 1\r\n}",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, base []byte) {
		urls := []string{ourURL}
		file, err := ReadDaemon("f", base, Version{})
		if err != nil || file.RemoveMirror(urls, nil).Found {
			return
		}
		out := file.AddMirror(ourURL)
		if len(bytes.TrimSpace(base)) > 0 {
			holds(t, bytes.Replace(base, []byte("null"), nil, 1), bytes.Replace(out, []byte("null"), nil, 1))
		}
		after, err := ReadDaemon("f", out, Version{})
		if err != nil || len(after.Mirrors) == 0 || after.Mirrors[0] != ourURL {
			t.Fatalf("not settled: %q: %v", out, err)
		}
		cleared, err := ReadDaemon("f", after.ClearMirrors(), Version{})
		if err != nil || !cleared.HasList() || len(cleared.Mirrors) != 0 {
			t.Errorf("cleared %q: %v", after.ClearMirrors(), err)
		}
		r := after.RemoveMirror(urls, file)
		if r.Bare && len(bytes.TrimSpace(base)) == 0 {
			r.Rest = base
		}
		if !r.Found || !bytes.Equal(r.Rest, base) {
			t.Errorf("%q became %q and then %q (found %v)", base, out, r.Rest, r.Found)
		}
	})
}

func FuzzContainerdConfig(f *testing.F) {
	for _, text := range []string{
		"version = 2", "version = 2\n" + runcV2, criV2, criV2 + "\n", criV2 + "\nconfig_path = \"\" # c", criV2 + "\r\nconfig_path = 'x'\r\n[z]\r\n",
		"plugins.\"io.containerd.grpc.v1.cri\".registry.config_path = \"\"\n", "[plugins]\n", "plugins = {}", criV2 + "\n# c\nconfig_path = \"\"\n",
		settingMark + "\n" + criV2 + "\nconfig_path = \"\"\n", criV2 + "\nconfig_path = \"\"\"\n\"\"\"",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, base []byte) {
		if r, _ := RemoveConfigPath("f", base); r.Found {
			return
		}
		out, err := SetConfigPath("f", base, SectionV2, certsFolder)
		if err != nil {
			return
		}
		holds(t, base, out)
		var values map[string]any
		if err := toml.Unmarshal(out, &values); err != nil {
			t.Fatal(err)
		}
		for _, name := range SectionV2 {
			values, _ = values[name].(map[string]any)
		}
		if values["config_path"] != certsFolder {
			t.Errorf("config_path is %q in %q", values["config_path"], out)
		}
		r, err := RemoveConfigPath("f", out)
		if err != nil || !r.Found || !bytes.Equal(r.Rest, base) {
			t.Errorf("%q became %q and then %q (found %v): %v", base, out, r.Rest, r.Found, err)
		}
	})
}

// holds wants all bytes of base in out, in their order.
func holds(t *testing.T, base, out []byte) {
	t.Helper()
	i := 0
	for _, b := range out {
		if i < len(base) && base[i] == b {
			i++
		}
	}
	if i < len(base) {
		t.Errorf("%q lost something in %q", base, out)
	}
}
