package clients_test

import (
	"fmt"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// A client that pulls by prefix asks /v2/ first, which names no registry: how it logs in must not
// depend on the default registry. crane and skopeo failed in five of seven combinations.
func TestAClientWithALoginPullsByPrefixWhateverTheDefaultRegistryIs(t *testing.T) {
	for _, hub := range []string{"daemon", "relay", "auto"} {
		for _, scheme := range []string{"Bearer", "Basic", ""} {
			for _, own := range []string{"relay", "auto"} {
				for _, relayed := range []string{"Bearer", "Basic"} {
					t.Run(fmt.Sprintf("docker.io %s %s, registry %s %s", hub, scheme, own, relayed), func(t *testing.T) {
						newRelay(t, hub, scheme, own, relayed).pullByPrefix()
					})
				}
			}
		}
	}
}

// newRelay starts sidemirror in front of reg.test, which is private, and of docker.io. Each has a
// client_auth and a way to log in of its own. The clients have the login for reg.test.
func newRelay(t *testing.T, hubAuth, hubScheme, auth, scheme string) *stage {
	t.Helper()
	users := map[string]string{user: password}
	hub := quirky.New(t, quirky.Options{Auth: quirky.Auth{Scheme: hubScheme}})
	s := &stage{t: t, login: user + ":" + password, up: quirky.New(t, quirky.Options{
		Auth: quirky.Auth{Scheme: scheme, Users: users, Private: []string{""}},
	})}
	s.up.Add("alice/private", "v1", quirky.NewImage(false, "private", 1000))
	hub.Add("library/public", "v1", quirky.NewImage(false, "public", 1000))
	s.side = harness.Start(t, harness.Options{
		Registries: []harness.Registry{
			{Name: "docker.io", Upstreams: []string{hub.URL()}, ClientAuth: hubAuth},
			{Name: name, Upstreams: []string{s.up.URL()}, ClientAuth: auth},
		},
		Secrets: []string{password},
	})
	t.Cleanup(func() {
		for _, q := range hub.All() {
			if a := q.Authorization(); a != "" && (len(a) < 7 || a[:6] == "Basic ") {
				t.Errorf("docker.io was sent the login of %s: %s %s", name, q.Part, q.Path)
			}
		}
	})
	return s
}

// pullByPrefix pulls the private image by each client that takes a prefix, and fails for those
// that do not get it, and for those that get it without a login.
func (s *stage) pullByPrefix() {
	for _, c := range clients {
		if c.name == "containerd" || c.name == "docker" {
			continue // they pull from reg.test and docker.io by their mirrors
		}
		s.t.Run(c.name, func(t *testing.T) {
			with, without := *s, *s
			with.t, without.t, without.login = t, t, ""
			if err := c.pull(&with, "alice/private:v1"); err != nil {
				t.Errorf("with the login: %v", err)
			}
			if err := c.pull(&without, "alice/private:v1"); err == nil {
				t.Error("pulled without a login")
			}
		})
	}
}
