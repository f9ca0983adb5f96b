package config

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func TestUpstreamsAreReadAndShownInOneForm(t *testing.T) {
	for _, c := range []struct {
		text, shown, base, prefix, label string
		namespaced, optional             bool
	}{
		{text: "https://a.b", base: "https://a.b", label: "a.b"},
		{text: "https://A.B:5000/", shown: "https://a.b:5000", base: "https://a.b:5000", label: "a.b:5000"},
		{text: "https://a.b/v2", shown: "https://a.b", base: "https://a.b", label: "a.b"},
		{text: "https://a.b/v2/", shown: "https://a.b", base: "https://a.b", label: "a.b"},
		{text: "https://a.b/v2/hub-proxy", base: "https://a.b", prefix: "hub-proxy", label: "a.b/hub-proxy"},
		{text: "https://a.b/v2/hub-proxy/", shown: "https://a.b/v2/hub-proxy", base: "https://a.b", prefix: "hub-proxy", label: "a.b/hub-proxy"},
		{text: "https://a.b/v2/project/remote", base: "https://a.b", prefix: "project/remote", label: "a.b/project/remote"},
		{text: "https://a.b/repository/docker/v2", base: "https://a.b/repository/docker", label: "a.b/repository/docker"},
		{text: "https://a.b/API/v2/team", base: "https://a.b/API", prefix: "team", label: "a.b/API/team"},
		{text: "http://10.0.0.1:5000/v2/x", base: "http://10.0.0.1:5000", prefix: "x", label: "10.0.0.1:5000/x"},
		{text: "ns+https://a.b:5115", base: "https://a.b:5115", label: "a.b:5115", namespaced: true},
		{text: "ns+http://[::1]:30020", base: "http://[::1]:30020", label: "[::1]:30020", namespaced: true},
		{text: "optional+https://a.b", base: "https://a.b", label: "a.b", optional: true},
		{text: "optional+ns+https://a.b", base: "https://a.b", label: "a.b", namespaced: true, optional: true},
		{text: "ns+optional+https://a.b", shown: "optional+ns+https://a.b", base: "https://a.b", label: "a.b", namespaced: true, optional: true},
		{text: "optional+https://a.b/v2/x", base: "https://a.b", prefix: "x", label: "a.b/x", optional: true},
	} {
		u, err := parseUpstream(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if c.shown == "" {
			c.shown = c.text
		}
		if u.String() != c.shown || u.URL.String() != c.base || u.Prefix != c.prefix || u.Label() != c.label || u.Namespaced != c.namespaced || u.Optional != c.optional {
			t.Errorf("%s is read as %+v of %s, shown as %s, called %s", c.text, u, u.URL, u, u.Label())
		}
		if again, err := parseUpstream(u.String()); err != nil || again.String() != u.String() {
			t.Errorf("%s is shown as %s, which is read as %v, %v", c.text, u, again, err)
		}
	}
}

func TestConfigurationsWithWrongUpstreamsSayHowToWriteThem(t *testing.T) {
	for text, want := range map[string][2]string{
		"https://a.b/hub-proxy":                      {`has a path without "/v2"`, `write "https://a.b/v2/hub-proxy" if the names of all repositories begin with hub-proxy/ there, and "https://a.b/hub-proxy/v2" if the API is below that path`},
		"https://a.b/Artifactory/hub":                {`has a path without "/v2"`, `write "https://a.b/Artifactory/hub/v2"`},
		"https://a.b/v1/":                            {`has a path without "/v2"`, `"https://a.b/v1/v2"`},
		"https://a.b/v2/Hub":                         {"not the beginning of a repository's name", "lower-case"},
		"https://a.b/v2/hub//x":                      {"characters that no registry's API has", "/v2/PREFIX"},
		"https://a.b/v2/hub%2Fx":                     {"characters that no registry's API has", "/v2/PREFIX"},
		"https://a.b/../v2/x":                        {"characters that no registry's API has", "/v2/PREFIX"},
		"https://a.b/v2/../x":                        {"not the beginning of a repository's name", "lower-case"},
		"https://a.b/a b/v2":                         {"characters that no registry's API has", "/v2/PREFIX"},
		"https://a.b/?ns=docker.io":                  {"has a query", `write "ns+https://a.b"`},
		"https://a.b/v2/?x=1":                        {"has a query", "remove"},
		"ns+https://a.b/v2/x":                        {"has a prefix", `remove "ns+"`},
		"mirror+https://a.b":                         {`"mirror+" is not known`, "optional+ns+https://"},
		"Optional+https://a.b":                       {`"Optional+" is not known`, "optional+https://"},
		"+https://a.b":                               {`"+" is not known`, "optional+https://"},
		"optional+optional+https://a.b":              {`"optional+" occurs twice`, "remove one"},
		"optional+ftp://a.b":                         {"not an http or https URL", "https://"},
		"ns+a.b:5000":                                {"not an http or https URL", "https://"},
		"optional+https://me:pass@a.b":               {"contains a user or a password", "sidemirror login"},
		"optional+https://":                          {"no valid host", "https://"},
		"optional+ns+https://a.b#x":                  {"has a fragment", "remove"},
		"https://a.b/v2/" + strings.Repeat("a", 300): {"not the beginning of a repository's name", "lower-case"},
	} {
		_, err := Load(writeConfig(t, fmt.Sprintf("[registry.'r.test']\nupstreams = [%q]\n", text)), nil)
		if err == nil || !strings.Contains(fmt.Sprint(err), want[0]) || !strings.Contains(fmt.Sprint(err), want[1]) {
			t.Errorf("%s: %v", text, err)
		}
		if strings.Contains(fmt.Sprint(err), "pass@") {
			t.Errorf("%s: the error shows the password: %v", text, err)
		}
	}
}

func TestTheSameMirrorTwiceIsAMistakeAlsoIfOneIsOptional(t *testing.T) {
	_, err := Load(writeConfig(t, "[registry.'r.test']\nupstreams = ['https://a.b/v2/x', 'optional+https://a.b/v2/x/']\n"), nil)
	if err == nil || !strings.Contains(fmt.Sprint(err), "occurs twice") {
		t.Errorf("the error is %v", err)
	}
	for _, different := range []string{"'https://a.b/v2/x', 'https://a.b/v2/y'", "'https://a.b', 'ns+https://a.b'", "'https://a.b', 'https://a.b/x/v2'"} {
		if _, err := Load(writeConfig(t, "[registry.'r.test']\nupstreams = ["+different+"]\n"), nil); err != nil {
			t.Errorf("%s: %v", different, err)
		}
	}
}

func FuzzAnUpstreamIsShownAsItIsRead(f *testing.F) {
	for _, text := range []string{"https://a.b", "http://0//", "optional+ns+https://a.b:1/v2", "http://a/x/v2/y", "ns+http://[::1]:5", "https://a.b/v2/v2/v2", "https://a.b/x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseUpstream(text)
		if err != nil {
			return
		}
		again, err := parseUpstream(u.String())
		if err != nil || again.String() != u.String() || again.Label() != u.Label() {
			t.Errorf("%q is shown as %q, which is read as %q, %v", text, u, again, err)
		}
		if _, err := url.Parse(u.Address().String()); err != nil {
			t.Errorf("the address of %q: %v", text, err)
		}
	})
}
