package credential

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// shelf stands for credential helpers: what each has for a server.
type shelf struct {
	has   map[string]string // "helper server": "user:password"
	bound map[string]string // the only registry that a helper is for
	asked []string
}

func (s *shelf) Get(_ context.Context, name, server string) (Credential, error) {
	s.asked = append(s.asked, name+" "+server)
	username, password, _ := strings.Cut(s.has[name+" "+server], ":")
	return Credential{Username: username, Password: NewSecret(password)}, nil
}

func (s *shelf) Usable(name string) error {
	if name == "missing" {
		return errors.New("docker-credential-missing is not installed")
	}
	return nil
}

func (s *shelf) For(name, registry string) bool {
	return s.bound[name] == "" || s.bound[name] == registry
}

func TestHelpersOfAFileAreAskedAsItsOwnToolsAskThem(t *testing.T) {
	const inline = `"auths": {"quay.io": {"auth": "c3RhbGU6cA=="}, "quay.io/org": {"auth": "b3JnOnA="}, "ghcr.io": {"auth": "Z2hjcjpw"}}`
	for name, tt := range map[string]struct {
		document, registry, repository string
		want, asked                    string
	}{
		"the helper of a registry beats a stale login": {`"credHelpers": {"quay.io": "pass"}`, "quay.io", "a/b", "helper:p", "pass quay.io"},
		"and is asked for its namespaces too":          {`"credHelpers": {"quay.io": "pass"}`, "quay.io", "org/b", "helper:p", "pass quay.io"},
		"one that has nothing means anonymous":         {`"credHelpers": {"quay.io": "empty"}`, "quay.io", "a/b", "", "empty quay.io"},
		"the store has all others":                     {`"credHelpers": {"x.test": "empty"}, "credsStore": "pass"`, "quay.io", "a/b", "helper:p", "pass quay.io"},
		"a namespace is more specific than the store":  {`"credsStore": "pass"`, "quay.io", "org/b", "org:p", ""},
		"a registry without a helper opts out":         {`"credHelpers": {"quay.io": ""}, "credsStore": "pass"`, "quay.io", "a/b", "stale:p", ""},
		"Docker Hub has a name of its own":             {`"credsStore": "pass"`, "docker.io", "library/x", "hub:p", "pass https://index.docker.io/v1/"},
		"also as the key":                              {`"credHelpers": {"https://index.docker.io/v1/": "pass"}`, "docker.io", "", "hub:p", "pass https://index.docker.io/v1/"},
		"a store that is not for the registry":         {`"credsStore": "cloud"`, "ghcr.io", "a/b", "ghcr:p", ""},
		"and one that is":                              {`"credsStore": "cloud"`, "cloud.test", "a/b", "cloud:p", "cloud cloud.test"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shelf{
				has:   map[string]string{"pass quay.io": "helper:p", "pass https://index.docker.io/v1/": "hub:p", "cloud cloud.test": "cloud:p"},
				bound: map[string]string{"cloud": "cloud.test"},
			}
			f := fileWith(t, "{"+tt.document+", "+inline+"}")
			f.Helpers = s
			if got := spell(mustLookup(t, f, tt.registry, tt.repository)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if asked := strings.Join(s.asked, ", "); asked != tt.asked {
				t.Errorf("asked %q, want %q", asked, tt.asked)
			}
		})
	}
}

func TestAHelperThatCannotRunIsAFaultAndNeverAnonymous(t *testing.T) {
	f := fileWith(t, `{"credHelpers": {"quay.io": "missing"}, "auths": {"ghcr.io": {"auth": "bWU6cA=="}, "quay.io": {"auth": "bWU6cA=="}}}`)
	for _, helpers := range []Helpers{&shelf{}, nil} {
		f.Helpers = helpers
		if c, err := f.Lookup(t.Context(), "quay.io", "a/b"); err == nil || !strings.Contains(err.Error(), "missing") {
			t.Errorf("got %q, %v", spell(c), err)
		}
		if got := spell(mustLookup(t, f, "ghcr.io", "a/b")); got != "me:p" {
			t.Errorf("another registry: %q", got)
		}
		if err := f.Fault(); err == nil || !strings.Contains(err.Error(), "missing") {
			t.Errorf("fault: %v", err)
		}
	}
}

func TestKeysOfOtherToolsAreUnderstood(t *testing.T) {
	me := `{"auth": "bWU6cA=="}`
	for name, tt := range map[string]struct{ text, registry, repository, want string }{
		".dockercfg":                       {`{"https://quay.io/v1/": {"auth": "bWU6cA==", "email": "x@y.test"}}`, "quay.io", "a", "me:p"},
		".dockercfg, other host":           {`{"https://quay.io/v1/": {"auth": "bWU6cA=="}}`, "ghcr.io", "a", ""},
		"no .dockercfg":                    {`{"auths": {}, "https://quay.io/v1/": {"auth": "bWU6cA=="}}`, "quay.io", "a", ""},
		"a path after a scheme":            {`{"auths": {"https://quay.io/any/Path": ` + me + `}}`, "quay.io", "other/image", "me:p"},
		"the kubelet's wildcard":           {`{"auths": {"*.azurecr.io": ` + me + `}}`, "corp.azurecr.io", "a", "me:p"},
		"a wildcard covers one label":      {`{"auths": {"*.azurecr.io": ` + me + `}}`, "a.b.azurecr.io", "a", ""},
		"a wildcard covers no fewer":       {`{"auths": {"*.azurecr.io": ` + me + `}}`, "azurecr.io", "a", ""},
		"wildcards inside":                 {`{"auths": {"*.dkr.ecr.eu-*-1.amazonaws.com": ` + me + `}}`, "1.dkr.ecr.eu-west-1.amazonaws.com", "a", "me:p"},
		"a wildcard and a port":            {`{"auths": {"*.corp.test:5000": ` + me + `}}`, "r.corp.test:5000", "a", "me:p"},
		"no port does not match a port":    {`{"auths": {"*.corp.test": ` + me + `}}`, "r.corp.test:5000", "a", ""},
		"a wildcard with a namespace":      {`{"auths": {"https://*.corp.test": {}, "*.corp.test/org": ` + me + `}}`, "r.corp.test", "org/a", "me:p"},
		"a name is better than a wildcard": {`{"auths": {"*.corp.test": {"auth": "d2lsZDpw"}, "r.corp.test": ` + me + `}}`, "r.corp.test", "a", "me:p"},
		"of two wildcards the later one":   {`{"auths": {"*.corp.test": {"auth": "d2lsZDpw"}, "r.*.test": ` + me + `}}`, "r.corp.test", "a", "me:p"},
		"a wildcard for everything":        {`{"auths": {"*": ` + me + `}}`, "quay.io", "a", ""},
		"an address in brackets":           {`{"auths": {"[::1]:5000": ` + me + `}}`, "[::1]:5000", "a", "me:p"},
	} {
		if got := spell(mustLookup(t, fileWith(t, tt.text), tt.registry, tt.repository)); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

// docker reads the first JSON value, and so does its user's login work.
func TestTextAfterTheJSONIsIgnoredAndReported(t *testing.T) {
	f := fileWith(t, auths("quay.io", "me:p")+"\n\ncanary-text\n")
	if got := spell(mustLookup(t, f, "quay.io", "a")); got != "me:p" {
		t.Errorf("got %q", got)
	}
	if err := f.Fault(); err == nil || !strings.Contains(err.Error(), "line 3") || strings.Contains(err.Error(), "canary") {
		t.Errorf("fault: %v", err)
	}
}
