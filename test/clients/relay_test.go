package clients_test

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
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

// containerd asks up to five times for what a registry refuses to the token that it has just given.
func TestARegistryIsAskedOnceForWhatItRefusesAnEngine(t *testing.T) {
	e := startEngines(t)
	for _, auth := range []string{"daemon", "relay", "auto"} {
		t.Run(auth, func(t *testing.T) {
			s := newStage(t, e, quirky.Options{Auth: quirky.Auth{Scheme: "Bearer", Private: []string{""}}}, func(h *harness.Options) {
				for i := range h.Registries {
					h.Registries[i].ClientAuth = auth
				}
			})
			s.up.Add("alice/private", "v1", quirky.NewImage(false, "private", 1000))
			if err := e.containerd.Pull(t.Context(), name+"/alice/private:v1", ""); err == nil {
				t.Error("containerd pulled a private image without a login")
			}
			if err := e.containerd.Pull(t.Context(), name+"/alice/private:v1", user+":wrong"); err == nil {
				t.Error("containerd pulled a private image with a wrong login")
			}
			tried := map[string]int{}
			for _, q := range s.up.Requests(quirky.Registry, "", "/manifests/") {
				tried[q.Authorization()]++
			}
			if len(tried) == 0 {
				t.Error("the registry was not asked at all")
			}
			for authorization, n := range tried {
				most := 1
				if authorization == "" {
					most = 2 // each pull begins without one
				}
				if n > most {
					t.Errorf("the registry was asked %d times with Authorization %.24q", n, authorization)
				}
			}
			wrong := 0
			for _, q := range s.up.Requests(quirky.Token, "", "") {
				if strings.HasPrefix(q.Authorization(), "Basic ") || strings.Contains(q.Body, "password") {
					wrong++
				}
			}
			if wrong > 1 || auth != "daemon" && wrong == 0 {
				t.Errorf("the wrong login was sent to the token server %d times, want once", wrong)
			}
		})
	}
}

// reg.test and docker.io cannot be reached without sidemirror here, so a pull that succeeds went
// through it with the engine's login.
func TestAnEnginesLoginIsForRegistriesOfEachKind(t *testing.T) {
	e := startEngines(t)
	for _, auth := range []string{"relay", "auto"} {
		for _, scheme := range []string{"Bearer", "Basic"} {
			t.Run(auth+" "+scheme, func(t *testing.T) {
				login := quirky.Auth{Scheme: scheme, Users: map[string]string{user: password}, Private: []string{""}}
				s := newStage(t, e, quirky.Options{Auth: login}, func(h *harness.Options) {
					h.Logins, h.Secrets = nil, []string{password}
					for i := range h.Registries {
						h.Registries[i].ClientAuth = auth
					}
				})
				repository := strings.ToLower("alice/" + auth + "-" + scheme)
				s.up.Add(repository, "v1", quirky.NewImage(false, repository, 1000))
				if err := e.containerd.Pull(t.Context(), name+"/"+repository+":v1", user+":"+password); err != nil {
					t.Error(err)
				}
				folder := t.TempDir()
				write(t, filepath.Join(folder, "config.json"), fmt.Sprintf(`{"auths":{"https://index.docker.io/v1/":{"auth":%q}}}`,
					base64.StdEncoding.EncodeToString([]byte(user+":"+password))))
				if err := e.docker.Pull(t.Context(), repository+":v1", folder); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
