package splice

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/internal/problem"
)

const buildkitOther = `# ours
root = "/var/lib/buildkit"   # a comment

[worker.oci]
  enabled = true
`

var buildkit = BuildKit{Mirror: "127.0.0.1:305", Registries: []string{"docker.io", "reg.test:5000"}}

func TestBuildkitdTOMLGetsSidemirrorFirst(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ base, has string }{
		"no file":               {"", FileMark + "\n[registry.\"docker.io\"]\n  mirrors = [\"127.0.0.1:305\"]\n\n[registry.\"reg.test:5000\"]\n"},
		"other settings":        {buildkitOther, buildkitOther + "\n" + tableMark + "\n[registry.\"docker.io\"]\n  mirrors = [\"127.0.0.1:305\"]\n\n" + tableMark + "\n"},
		"no newline at the end": {strings.TrimSuffix(buildkitOther, "\n"), "enabled = true\n\n" + tableMark},
		"CRLF":                  {strings.ReplaceAll(buildkitOther, "\n", "\r\n"), "\r\n" + tableMark + "\r\n[registry.\"docker.io\"]\r\n"},
		"a table":               {"[registry.\"docker.io\"]\n  ca = [\"/ca.pem\"]\n" + buildkitOther, "[registry.\"docker.io\"]\n" + settingMark + "\nmirrors = [\"127.0.0.1:305\"]\n  ca"},
		"a table at the end":    {buildkitOther + "[registry.\"docker.io\"]", "[registry.\"docker.io\"]\n" + settingMark},
		"a table with keypairs": {"[registry.\"docker.io\"]\n[[registry.\"docker.io\".keypair]]\nkey = \"/k\"\ncert = \"/c\"\n", "[registry.\"docker.io\"]\n" + settingMark},
		"mirrors":               {"[registry.\"docker.io\"]\n  mirrors = [\"m.corp:5000/hub\", 'n.corp'] # two\n  http = true\n", "mirrors = [\"127.0.0.1:305\", \"m.corp:5000/hub\", 'n.corp'] # two\n"},
		"mirrors, many lines":   {"[registry.\"docker.io\"]\nmirrors = [\n  \"m.corp\",\n  # and\n  \"n.corp\",\n]\n", "mirrors = [\"127.0.0.1:305\", \n  \"m.corp\","},
		"no mirrors":            {"[registry.\"docker.io\"]\nmirrors = []\n", "mirrors = [\"127.0.0.1:305\"]\n"},
		"dotted mirrors":        {"registry.\"docker.io\".mirrors = [\"m.corp\"]\n", "mirrors = [\"127.0.0.1:305\", \"m.corp\"]"},
		"both":                  {"[registry.\"reg.test:5000\"]\n  insecure = true\n[registry.'docker.io']\nmirrors=['m']", "mirrors=[\"127.0.0.1:305\", 'm']"},
	} {
		out, err := buildkit.Add("/x", []byte(tt.base))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !strings.Contains(string(out), tt.has) {
			t.Errorf("%s: no\n%s\nin\n%s", name, tt.has, out)
		}
		if !buildkit.Settled("/x", out) || buildkit.Settled("/x", []byte(tt.base)) {
			t.Errorf("%s: settled is wrong for\n%s", name, out)
		}
		removed, err := RemoveBuildKit("/x", out, []string{"http://127.0.0.1:305"})
		if err != nil || !removed.Found || removed.Bare != (tt.base == "") || !removed.Bare && string(removed.Rest) != tt.base {
			t.Errorf("%s: removed leaves (%v)\n%s\nwant\n%s", name, err, removed.Rest, tt.base)
		}
	}
}

func TestBuildkitdTOMLThatCannotBeEditedIsRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"not TOML":          "[registry",
		"inline table":      "registry = {\"docker.io\" = {http = true}}\n",
		"an inline of one":  "[registry]\n\"docker.io\" = {http = true}\n",
		"a dotted key":      "registry.\"docker.io\".http = true\n",
		"mirrors no list":   "[registry.\"docker.io\"]\nmirrors = \"m.corp\"\n",
		"our mirror last":   "[registry.\"docker.io\"]\nmirrors = 1\n",
		"registry, a value": "registry = 1\n",
	} {
		var p *problem.Problem
		if out, err := buildkit.Add("/x", []byte(text)); !errors.As(err, &p) || p.Hint == "" {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestWhatOthersWroteIntoBuildkitdTOMLStays(t *testing.T) {
	t.Parallel()
	out, err := buildkit.Add("/x", []byte(buildkitOther))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ now, rest string }{
		"a table below":        {string(out) + "\n[grpc]\n  debugAddress = \"0.0.0.0:6060\"\n", buildkitOther + "\n[grpc]\n  debugAddress = \"0.0.0.0:6060\"\n"},
		"a mirror added":       {strings.Replace(string(out), "[\"127.0.0.1:305\"]", "[\"127.0.0.1:305\", \"m.corp\"]", 1), "[\"m.corp\"]"},
		"a setting added":      {strings.Replace(string(out), "[\"127.0.0.1:305\"]\n", "[\"127.0.0.1:305\"]\n  http = true\n", 1), "http = true"},
		"comments are gone":    {"root = 'x'\n[registry]\n[registry.'docker.io']\nmirrors = ['127.0.0.1:305']\n", "root = 'x'\n[registry]\n[registry.'docker.io']\nmirrors = []\n"},
		"nothing of ours":      {"[registry.'docker.io']\nmirrors = ['m.corp']\n", "[registry.'docker.io']\nmirrors = ['m.corp']\n"},
		"another address":      {"[registry.'docker.io']\nmirrors = ['127.0.0.1:3055']\n", "mirrors = ['127.0.0.1:3055']\n"},
		"ours is not first":    {"[registry.'docker.io']\nmirrors = ['m.corp', '127.0.0.1:305']\n", "[registry.'docker.io']\nmirrors = ['m.corp']\n"},
		"ours is in between":   {"[registry.'docker.io']\nmirrors = ['m.corp','127.0.0.1:305','n.corp']\n", "[registry.'docker.io']\nmirrors = ['m.corp','n.corp']\n"},
		"ours in a comment":    {"# ask 127.0.0.1:305\n", "# ask 127.0.0.1:305\n"},
		"a file without sense": {"x", ""},
	} {
		got, err := RemoveBuildKit("/x", []byte(tt.now), []string{"http://127.0.0.1:305"})
		if err != nil || !bytes.Contains(got.Rest, []byte(tt.rest)) || buildkit.Settled("/x", got.Rest) {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got.Rest, tt.rest)
		}
	}
	if _, err := RemoveBuildKit("/x", append(out, "[["...), []string{"http://127.0.0.1:305"}); err == nil {
		t.Error("a torn file with sidemirror's entry is not refused")
	}
}

func FuzzBuildKit(f *testing.F) {
	for _, seed := range []string{buildkitOther, "[registry.\"docker.io\"]\nmirrors = [\n'a', # b\n]\n", "registry.\"docker.io\".mirrors=[]", "[registry.'docker.io']\r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, base []byte) {
		out, err := buildkit.Add("/x", base)
		if err != nil || len(base) == 0 || bytes.Contains(base, []byte("127.0.0.1:305")) || Marked(base) {
			return
		}
		removed, err := RemoveBuildKit("/x", out, []string{"http://127.0.0.1:305"})
		if err != nil || !bytes.Equal(removed.Rest, base) {
			t.Fatalf("%q became %q and then %q, %v", base, out, removed.Rest, err)
		}
	})
}
