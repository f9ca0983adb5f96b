package hostconfig

import (
	"bytes"
	"testing"
)

// The same holds for each splicer: whatever bytes come in, there is an error, or a file
// that holds all of them in their order, that is settled, and of which removal
// makes the first bytes again.

func FuzzHosts(f *testing.F) {
	for _, text := range []string{
		"", theirs, "server = \"x\"", "server = \"x\"\n", "\r\n", "# c\n" + theirs, "a = \"\"\"\n# \"\"\"\n[host.x]", "[host]\n\"x\" = {}",
		"[[host.x]]", "host.x.y = 1", "[ host . 'x' ] # c\r\nk = 1\r\n", "ca = \"x\"\n\n", tableMark + "\n" + theirs, fileMark + "\n" + theirs, fileMark + "\n" + ourHost,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, base []byte) {
		if _, found, _, _ := removeHosts("f", base, nil); found {
			return
		}
		m := mirror{url: ourURL}
		out, err := addHosts("f", base, m)
		if err != nil {
			return
		}
		holds(t, base, out)
		if !hostsSettled("f", out, m) {
			t.Errorf("not settled: %q", out)
		}
		rest, found, bare, err := removeHosts("f", out, nil)
		if bare && len(base) == 0 {
			rest = base
		}
		if err != nil || !found || !bytes.Equal(rest, base) {
			t.Errorf("%q became %q and then %q (found %v): %v", base, out, rest, found, err)
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
		if _, found, _ := removeMirror("f", base, ourURL, nil); found {
			return
		}
		out, err := addMirror("f", base, ourURL)
		if err != nil {
			return
		}
		if len(bytes.TrimSpace(base)) > 0 {
			holds(t, bytes.Replace(base, []byte("null"), nil, 1), bytes.Replace(out, []byte("null"), nil, 1))
		}
		if !daemonSettled("f", out, ourURL) {
			t.Errorf("not settled: %q", out)
		}
		cleared, err := clearMirrors("f", out)
		if d, perr := parseDaemonJSON("f", cleared); err != nil || perr != nil || d.array == nil || len(d.mirrors) != 0 {
			t.Errorf("cleared %q: %v, %v", cleared, err, perr)
		}
		rest, found, err := removeMirror("f", out, ourURL, base)
		if isFreshDaemonJSON(out) && len(bytes.TrimSpace(base)) == 0 {
			rest = base
		}
		if err != nil || !found || !bytes.Equal(rest, base) {
			t.Errorf("%q became %q and then %q (found %v): %v", base, out, rest, found, err)
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
		if _, found, _, _ := removeConfigPath("f", base); found {
			return
		}
		out, err := setConfigPath("f", base, sectionV2, containerdHosts)
		if err != nil {
			return
		}
		holds(t, base, out)
		conf := criConfig{}
		if _, err := conf.add("f", out, true); err == nil && conf.path != containerdHosts {
			t.Errorf("config_path is %q in %q", conf.path, out)
		}
		rest, found, _, err := removeConfigPath("f", out)
		if err != nil || !found || !bytes.Equal(rest, base) {
			t.Errorf("%q became %q and then %q (found %v): %v", base, out, rest, found, err)
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
