package harness

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// serves reports whether registry is one that s serves: what is not served is
// NAME_UNKNOWN, and what is has an upstream here that refuses connections.
func serves(s *Sidemirror, registry string) bool {
	return s.Get("/v2/a/b/manifests/c?ns="+registry, nil).Status == http.StatusBadGateway
}

// nowhere returns a registry whose upstream is a port without a listener.
func nowhere(t *testing.T, name string) Registry {
	return Registry{Name: name, Upstreams: []string{"http://" + FreeAddress(t)}}
}

func TestReloadSwapsTheConfigurationOrKeepsTheOldOne(t *testing.T) {
	s := Start(t, Options{Registries: []Registry{nowhere(t, "a.test")}})
	if !serves(s, "a.test") || serves(s, "b.test") {
		t.Fatal("it does not serve what it was started with")
	}
	s.Reload(Options{Registries: []Registry{nowhere(t, "b.test")}})
	s.Eventually("the new configuration is in force", func() bool { return serves(s, "b.test") && !serves(s, "a.test") })
	s.Reload(Options{Registries: []Registry{nowhere(t, "c.test")}, Extra: "nonsense = true\n"})
	s.Eventually("the fault is in the log", func() bool { return strings.Contains(s.Log(), "nonsense") })
	if !serves(s, "b.test") || serves(s, "c.test") {
		t.Error("a configuration with a fault was taken in part")
	}
}

func TestDaemonRunsAsTheUserThatItIsToldTo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("another user needs root")
	}
	s := Start(t, Options{UID: Untrusted, Registries: []Registry{nowhere(t, "a.test")}, Logins: map[string]string{"a.test": "u:canary"}})
	info, err := os.Stat(s.Dir() + "/config.json")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("config.json: %v, %v", info, err)
	}
	if !serves(s, "a.test") {
		t.Error("it does not serve")
	}
}

func TestSecretInTheLogIsFound(t *testing.T) {
	for text, want := range map[string]bool{
		"password=canary-3f":          true,
		"basic " + "dTpjYW5hcnktM2Y=": true, // base64 of u:canary-3f
		"nothing":                     false,
	} {
		found := false
		for _, secret := range (Options{Logins: map[string]string{"r": "u:canary-3f"}}).secrets() {
			found = found || strings.Contains(text, secret)
		}
		if found != want {
			t.Errorf("%q: found %v, want %v", text, found, want)
		}
	}
}
