package mirrors

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

const (
	mirrorLogin   = "mirror-robot:canary-of-the-mirror"
	projectLogin  = "project-robot:canary-of-the-project"
	registryLogin = "registry-robot:canary-of-the-registry"
)

// leaks reports the logins other than own that a server got, in whatever form.
func leaks(t *testing.T, who string, s *quirky.Server, own string) {
	t.Helper()
	for _, r := range s.All() {
		for _, login := range []string{mirrorLogin, projectLogin, registryLogin} {
			_, password, _ := strings.Cut(login, ":")
			encoded := base64.StdEncoding.EncodeToString([]byte(login))
			seen := strings.Join(r.Header.Values("Authorization"), " ") + " " + r.Query.Encode() + " " + r.Body
			if login != own && (strings.Contains(seen, password) || strings.Contains(seen, encoded)) {
				t.Errorf("%s got the login %s by %s %s", who, login, r.Method, r.Path)
			}
		}
	}
}

func users(login string) map[string]string {
	name, password, _ := strings.Cut(login, ":")
	return map[string]string{name: password}
}

func private(scheme, login string) quirky.Options {
	return quirky.Options{Auth: quirky.Auth{Scheme: scheme, Users: users(login), Private: []string{""}}}
}

func TestEachMirrorGetsTheLoginOfItsOwnHostAndPathOnly(t *testing.T) {
	for _, scheme := range []string{"Basic", "Bearer"} {
		t.Run(scheme, func(t *testing.T) {
			image := quirky.NewImage(true, "logins", 10_000)
			mirror, project, home := quirky.New(t, private(scheme, mirrorLogin)), quirky.New(t, private(scheme, projectLogin)), quirky.New(t, private(scheme, registryLogin))
			home.Add("library/app", "v1", image)
			s := harness.Start(t, harness.Options{
				Registries: []harness.Registry{{Name: home.Host(), Upstreams: []string{"ns+" + mirror.URL(), project.URL() + "/v2/team/hub", home.URL()}}},
				Logins:     map[string]string{mirror.Host(): mirrorLogin, project.Host() + "/team": projectLogin, home.Host(): registryLogin},
			})
			path := "/v2/library/app/manifests/v1?ns=" + home.Host()
			s.Get(path, nil).Whole(t, "the manifest, which only the registry has", image.Bytes)
			for who, at := range map[string]struct {
				server *quirky.Server
				own    string
			}{"the mirror": {mirror, mirrorLogin}, "the project": {project, projectLogin}, "the registry": {home, registryLogin}} {
				leaks(t, who, at.server, at.own)
				if scheme == "Basic" && !sent(at.server, at.own) {
					t.Errorf("%s did not get its own login", who)
				}
			}
			if asked := project.Requests(quirky.Registry, "", "/v2/team/hub/library/app/manifests/v1"); len(asked) == 0 {
				t.Error("the project was not asked by its prefix")
			}
		})
	}
}

// sent reports whether a server got a login by Basic.
func sent(s *quirky.Server, login string) bool {
	for _, r := range s.All() {
		if r.Authorization() == "Basic "+base64.StdEncoding.EncodeToString([]byte(login)) {
			return true
		}
	}
	return false
}

func TestALoginForAnotherPathOfTheMirrorsHostIsNotUsed(t *testing.T) {
	mirror := quirky.New(t, private("Basic", projectLogin))
	home := quirky.New(t, quirky.Options{})
	image := quirky.NewImage(true, "path", 1000)
	home.Add("library/app", "v1", image)
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: "docker.io", Upstreams: []string{"optional+" + mirror.URL() + "/v2/team/hub", home.URL()}}},
		Logins:     map[string]string{mirror.Host() + "/other": projectLogin},
	})
	s.Get("/v2/library/app/manifests/v1?ns=docker.io", nil).Whole(t, "the manifest", image.Bytes)
	leaks(t, "the mirror", mirror, "")
	if mirror.Count(quirky.Registry, "", "/v2/team/hub/library/app/") == 0 {
		t.Error("the mirror was not asked")
	}
}

// A mirror chooses where its redirects and its challenges lead: to the registry, to be sent the
// registry's login, or to have its own sent there.
func TestAMirrorsRedirectsAndRealmsMoveNoLogin(t *testing.T) {
	image := quirky.NewImage(true, "redirects", 10_000)
	for name, lead := range map[string]func(home *quirky.Server) func(quirky.Part, http.ResponseWriter, *http.Request) bool{
		"a redirect to the registry": func(home *quirky.Server) func(quirky.Part, http.ResponseWriter, *http.Request) bool {
			return func(_ quirky.Part, w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Authorization") == "" {
					return false // it asks for a login first
				}
				path := strings.TrimPrefix(r.URL.Path, "/v2/team/hub")
				http.Redirect(w, r, home.URL()+"/v2"+path, http.StatusTemporaryRedirect)
				return true
			}
		},
		"the registry's realm": func(home *quirky.Server) func(quirky.Part, http.ResponseWriter, *http.Request) bool {
			return func(_ quirky.Part, w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+home.URL()+`/token",service="quirky"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			home := quirky.New(t, private("Bearer", registryLogin))
			home.Add("library/app", "v1", image)
			o := private("Basic", mirrorLogin)
			o.Intercept = lead(home)
			mirror := quirky.New(t, o)
			s := harness.Start(t, harness.Options{
				Registries: []harness.Registry{{Name: home.Host(), Upstreams: []string{"optional+" + mirror.URL() + "/v2/team/hub", home.URL()}}},
				Logins:     map[string]string{mirror.Host(): mirrorLogin, home.Host(): registryLogin},
			})
			s.Get("/v2/library/app/manifests/v1?ns="+home.Host(), nil).Whole(t, "the manifest", image.Bytes)
			leaks(t, "the mirror", mirror, mirrorLogin)
			leaks(t, "the registry", home, registryLogin)
			if mirror.Count(quirky.Registry, "", "/v2/team/hub/") == 0 {
				t.Error("the mirror was not asked")
			}
		})
	}
}
