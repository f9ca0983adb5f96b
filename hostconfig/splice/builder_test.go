package splice

import (
	"bytes"
	"strings"
	"testing"
)

var newBuilders = Builder{BuildKit{Mirror: "172.17.0.1:305", PlainHTTP: true, Registries: []string{"docker.io", "reg.test:5000"}}}

const builderTable = "[registry.\"172.17.0.1:305\"]\n  http = true\n"

func TestConfigurationOfNewBuildersAsksSidemirrorByPlainHTTP(t *testing.T) {
	t.Parallel()
	for name, base := range map[string]string{
		"no file":               "",
		"other settings":        buildkitOther,
		"no newline at the end": strings.TrimSuffix(buildkitOther, "\n"),
		"CRLF":                  strings.ReplaceAll(buildkitOther, "\n", "\r\n"),
		"mirrors of the user's": "[registry.\"docker.io\"]\n  mirrors = [\"m.corp:5000/hub\"] # two\n",
		"a table":               "[registry.\"docker.io\"]\n  ca = [\"/ca.pem\"]\n",
	} {
		out, err := newBuilders.Add("/x", []byte(base))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text := strings.ReplaceAll(string(out), "\r\n", "\n")
		if !newBuilders.Settled("/x", out) || !strings.Contains(text+"\n", builderTable) || !strings.Contains(text, "to undo: "+BuilderUndo) || strings.Contains(text, revertCommand) {
			t.Errorf("%s became\n%s", name, out)
		}
		// The address of the bridge may be another one by now.
		removed, err := RemoveBuilder("/x", out, []string{"http://10.0.0.1:305"})
		if err != nil || !removed.Found || removed.Bare != (base == "") || !removed.Bare && string(removed.Rest) != base {
			t.Errorf("%s: removed leaves (%v)\n%s\nwant\n%s", name, err, removed.Rest, base)
		}
		if base == "" {
			continue
		}
		const more = "\n[grpc]\n  debugAddress = \"0.0.0.0:6060\"\n"
		if removed, err = RemoveBuilder("/x", append(bytes.Clone(out), more...), nil); err != nil || !strings.HasSuffix(string(removed.Rest), more) || Marked(removed.Rest) {
			t.Errorf("%s: removed from an edited file (%v)\n%s", name, err, removed.Rest)
		}
	}
}

func TestTableOfTheUsersForThatAddressStays(t *testing.T) {
	t.Parallel()
	const own = "[registry.\"172.17.0.1:305\"]\nhttp = true\n"
	out, err := newBuilders.Add("/x", []byte(own))
	if err != nil || !newBuilders.Settled("/x", out) {
		t.Fatalf("%v\n%s", err, out)
	}
	if removed, err := RemoveBuilder("/x", out, []string{"http://172.17.0.1:305"}); err != nil || string(removed.Rest) != own {
		t.Errorf("removed leaves (%v)\n%s", err, removed.Rest)
	}
	if out, err := newBuilders.Add("/x", []byte("[registry.\"172.17.0.1:305\"]\ninsecure = true\n")); err == nil {
		t.Errorf("a table that does not allow plain HTTP became\n%s", out)
	}
}

func FuzzBuilder(f *testing.F) {
	for _, seed := range []string{buildkitOther, "[registry.\"docker.io\"]\nmirrors = [\n'a', # b\n]\n", "[registry.'docker.io']\r\n", "[registry.\"172.17.0.1:305\"]\nhttp = true\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, base []byte) {
		out, err := newBuilders.Add("/x", base)
		if err != nil || len(base) == 0 || bytes.Contains(base, []byte("172.17.0.1:305")) || Marked(base) || bytes.Contains(base, []byte("# sidemirror")) {
			return
		}
		removed, err := RemoveBuilder("/x", out, []string{"http://172.17.0.1:305"})
		if err != nil || !bytes.Equal(removed.Rest, base) {
			t.Fatalf("%q became %q and then %q, %v", base, out, removed.Rest, err)
		}
	})
}
