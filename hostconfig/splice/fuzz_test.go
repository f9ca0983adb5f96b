package splice

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// The same holds for each editor: whatever bytes come in, there is an error, or a file that is
// settled and contains all of them in their order, and removal restores the original bytes.

func FuzzHosts(f *testing.F) {
	for _, data := range corpus(f, "hosts.toml") {
		f.Add(data)
	}
	f.Fuzz(checkHostsEdit)
}

func checkHostsEdit(t *testing.T, base []byte) {
	t.Helper()
	if r, err := RemoveHosts("f", base, nil); err == nil && r.Found {
		return
	}
	for _, h := range []Hosts{
		{URL: ourURL, Registry: "r.example"},
		{URL: ourURL, Registry: "docker.io", Library: Version{2, 3}, Mirrors: []Mirror{
			{URL: "https://m.example:5000", CA: []string{"ca.crt"}, SkipVerify: true}, {URL: ourURL + "/"}, {URL: "http://n.example"},
		}},
	} {
		out, err := h.Add("f", base)
		if err != nil {
			wantProblem(t, err)
			continue
		}
		holds(t, base, out)
		if !h.Settled("f", out) {
			t.Errorf("not settled: %q", out)
		}
		sameTOML(t, base, out, "host")
		r, err := RemoveHosts("f", out, nil)
		if r.Bare && len(base) == 0 {
			r.Rest = base
		}
		if err != nil || !r.Found || !bytes.Equal(r.Rest, base) {
			t.Errorf("%q became %q and then %q (found %v): %v", base, out, r.Rest, r.Found, err)
		}
	}
}

func FuzzDaemon(f *testing.F) {
	for _, data := range corpus(f, "daemon.json") {
		f.Add(data)
	}
	f.Fuzz(checkDaemonEdit)
}

func checkDaemonEdit(t *testing.T, base []byte) {
	t.Helper()
	urls := []string{ourURL}
	if RemoveMirror(base, urls, nil).Found {
		return
	}
	for _, v := range []Version{{}, {20, 10}, {26, 1}, {28, 5}, {29, 7}} {
		file, err := ReadDaemon("f", base, v)
		if err != nil {
			wantProblem(t, err)
			continue
		}
		out, err := file.AddMirror(ourURL)
		if err != nil {
			t.Fatalf("%q: %v", base, err)
		}
		after, err := ReadDaemon("f", out, v)
		if err != nil || !after.Settled(ourURL) {
			t.Fatalf("not settled: %q: %v", out, err)
		}
		sameJSON(t, file, after)
		cleared, err := ReadDaemon("f", after.ClearMirrors(), v)
		if err != nil || !cleared.HasList() || len(cleared.Mirrors) != 0 {
			t.Errorf("cleared %q: %v", after.ClearMirrors(), err)
		}
		if r := RemoveMirror(out, urls, append([]byte{}, base...)); !r.Found || !bytes.Equal(r.Rest, base) {
			t.Errorf("%q became %q and then %q (found %v)", base, out, r.Rest, r.Found)
		}
	}
}

func FuzzConfig(f *testing.F) {
	for _, data := range corpus(f, "config.toml") {
		f.Add(data)
	}
	f.Fuzz(checkConfigEdit)
}

func checkConfigEdit(t *testing.T, base []byte) {
	t.Helper()
	if r, err := RemoveConfigPath("f", base); err == nil && r.Found {
		return
	}
	for _, section := range [][]string{SectionV1, SectionV2, SectionV3} {
		out, err := SetConfigPath("f", base, section, certsFolder)
		if err != nil {
			wantProblem(t, err)
			continue
		}
		holds(t, base, out)
		sameTOML(t, base, out, "plugins")
		var values map[string]any
		if err := toml.Unmarshal(out, &values); err != nil {
			t.Fatal(err)
		}
		for _, name := range section {
			values, _ = values[name].(map[string]any)
		}
		if values["config_path"] != certsFolder {
			t.Errorf("config_path is %q in %q", values["config_path"], out)
		}
		r, err := RemoveConfigPath("f", out)
		if err != nil || !r.Found || !bytes.Equal(r.Rest, base) {
			t.Errorf("%q became %q and then %q (found %v): %v", base, out, r.Rest, r.Found, err)
		}
	}
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

// sameTOML wants two files to mean the same, except for one key at the top of both.
func sameTOML(t *testing.T, base, out []byte, except string) {
	t.Helper()
	var was, is map[string]any
	if err := toml.Unmarshal(base, &was); err != nil {
		t.Fatal(err)
	}
	if err := toml.Unmarshal(out, &is); err != nil {
		t.Fatalf("%q is not valid any more: %v", out, err)
	}
	delete(was, except)
	delete(is, except)
	if a, b := fmt.Sprintf("%#v", was), fmt.Sprintf("%#v", is); len(was)+len(is) > 0 && a != b {
		t.Errorf("%s became %s", a, b)
	}
}

// sameJSON wants two files to mean the same, except for the mirror added.
func sameJSON(t *testing.T, base, out *Daemon) {
	t.Helper()
	var was, is map[string]any
	if len(base.json()) > 0 && json.Unmarshal(base.json(), &was) != nil || json.Unmarshal(out.json(), &is) != nil {
		t.Fatalf("%q is not valid", out.data)
	}
	delete(was, mirrorsKey)
	delete(is, mirrorsKey)
	if a, b := fmt.Sprint(was), fmt.Sprint(is); a != b || !slices.Equal(out.Mirrors[1:], base.Mirrors) {
		t.Errorf("%s %q became %s %q", a, base.Mirrors, b, out.Mirrors)
	}
}

// Removal only removes, also from a file that is broken or that only looks like sidemirror's.
func FuzzRemove(f *testing.F) {
	for _, name := range []string{"hosts.toml", "daemon.json", "config.toml"} {
		for _, data := range corpus(f, name) {
			f.Add(data)
		}
	}
	for _, data := range broken(f) {
		f.Add(data)
	}
	f.Fuzz(checkRemoval)
}

// broken returns files with an entry, and with something added that makes them invalid.
func broken(t testing.TB) (list [][]byte) {
	t.Helper()
	for _, base := range corpus(t, "daemon.json") {
		if d, err := ReadDaemon("f", base, Version{}); err == nil {
			if out, err := d.AddMirror(ourURL); err == nil {
				list = append(list, append(out, "// x\n"...), append([]byte("/* x */ "), out...))
			}
		}
	}
	h := Hosts{URL: ourURL, Library: Version{2, 4}, Mirrors: []Mirror{{URL: "https://m.example", SkipVerify: true}}}
	for _, base := range corpus(t, "hosts.toml") {
		if out, err := h.Add("f", base); err == nil {
			list = append(list, out, append(out, "[x"...))
		}
	}
	for _, base := range corpus(t, "config.toml") {
		if out, err := SetConfigPath("f", base, SectionV2, certsFolder); err == nil {
			list = append(list, out, append(out, "\n[x"...))
		}
	}
	return list
}

func checkRemoval(t *testing.T, data []byte) {
	t.Helper()
	r := RemoveMirror(data, []string{ourURL}, nil)
	holds(t, r.Rest, data)
	if r.Found == bytes.Equal(r.Rest, data) {
		t.Errorf("found %v, but %q became %q", r.Found, data, r.Rest)
	}
	for name, remove := range map[string]func([]byte) (Removed, error){
		"hosts.toml":  func(data []byte) (Removed, error) { return RemoveHosts("f", data, nil) },
		"config.toml": func(data []byte) (Removed, error) { return RemoveConfigPath("f", data) },
	} {
		r, err := remove(data)
		if err != nil {
			wantProblem(t, err)
			continue
		}
		if r.Found == bytes.Equal(r.Rest, data) {
			t.Errorf("%s: found %v, but %q became %q", name, r.Found, data, r.Rest)
		}
		holds(t, r.Rest, data)
	}
}
