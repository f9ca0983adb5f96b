package access

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func private(scheme string) quirky.Options {
	return quirky.Options{Auth: quirky.Auth{Scheme: scheme, Users: map[string]string{user: password}, Private: []string{"team/"}}}
}

func TestALoginIsNeverSentToAMirrorOfTheRegistry(t *testing.T) {
	for _, scheme := range []string{"Basic", "Bearer"} {
		t.Run(scheme, func(t *testing.T) {
			mirror, own := newBait(t, scheme), quirky.New(t, private(scheme))
			own.Add(repo, "v1", image)
			s := harness.Start(t, harness.Options{
				Registries: []harness.Registry{{Name: own.Host(), Upstreams: []string{mirror.URL, own.URL()}}},
				Logins:     map[string]string{own.Host(): user + ":" + password},
			})
			for _, what := range []string{"manifests/v1", "blobs/" + layer.Digest.String(), "tags/list"} {
				s.Get(of(own.Host(), what), nil)
			}
			if caught := mirror.caught(); len(caught) != 0 {
				t.Errorf("the mirror got %d credentials", len(caught))
			}
			if mirror.asked() == 0 {
				t.Error("the mirror was not asked at all")
			}
		})
	}
}

func TestAMirrorWithoutTheImageLeavesTheLoginToTheRegistryItself(t *testing.T) {
	mirror := httptest.NewServer(http.NotFoundHandler())
	defer mirror.Close()
	own := quirky.New(t, private("Bearer"))
	own.Add(repo, "v1", image)
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: own.Host(), Upstreams: []string{mirror.URL, own.URL()}}},
		Logins:     map[string]string{own.Host(): user + ":" + password},
	})
	s.Get(of(own.Host(), "manifests/v1"), nil).Whole(t, "the manifest", image.Bytes)
	s.Get(of(own.Host(), "blobs/"+layer.Digest.String()), nil).Whole(t, "the layer", layer.Bytes)
	s.DoWith(untrusted(t), "GET", of(own.Host(), "manifests/v1"), nil).Is(t, "an untrusted caller", 401)
}

func TestAMirrorGetsTheLoginThatIsForItsOwnHost(t *testing.T) {
	mirror, own := quirky.New(t, private("Basic")), newBait(t, "Basic")
	mirror.Add(repo, "v1", image)
	name := strings.TrimPrefix(own.URL, "http://")
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: name, Upstreams: []string{mirror.URL(), own.URL}}},
		Logins:     map[string]string{mirror.Host(): user + ":" + password},
	})
	s.Get(of(name, "manifests/v1"), nil).Whole(t, "the manifest", image.Bytes)
	if caught := own.caught(); len(caught) != 0 {
		t.Error("the registry itself got the mirror's login")
	}
}

// The command line's login must not offer the password to whatever stands first in upstreams.
func TestTheLoginCommandAsksTheRegistryItself(t *testing.T) {
	mirror, own := newBait(t, "Basic"), quirky.New(t, private("Basic"))
	config := fmt.Sprintf("credentials.store = %q\n[registry.%q]\nupstreams = [%q, %q]\n",
		filepath.Join(t.TempDir(), "store.json"), own.Host(), mirror.URL, own.URL())
	out, code := command(t, config, password, "login", own.Host(), "-u", user, "--password-stdin")
	if code != 0 {
		t.Errorf("exit %d: %s", code, out)
	}
	if mirror.asked() != 0 {
		t.Errorf("the mirror was asked %d times, and sent %d credentials", mirror.asked(), len(mirror.caught()))
	}
}

func TestTheLoginCommandSendsNothingIfNoUpstreamIsTheRegistry(t *testing.T) {
	mirror := newBait(t, "Basic")
	host := strings.TrimPrefix(mirror.URL, "http://")
	config := fmt.Sprintf("credentials.store = %q\n[registry.\"docker.io\"]\nupstreams = [%q]\n", filepath.Join(t.TempDir(), "store.json"), mirror.URL)
	out, code := command(t, config, password, "login", "docker.io", "-u", user, "--password-stdin")
	if code == 0 || !strings.Contains(out, "sidemirror login "+host) {
		t.Errorf("exit %d, and it does not say where to log in instead: %s", code, out)
	}
	if mirror.asked() != 0 {
		t.Errorf("the mirror was asked %d times, and sent %d credentials", mirror.asked(), len(mirror.caught()))
	}
}

// The token of the registry's client is a credential of the registry's too.
func TestAMirrorDoesNotSeeTheClientsAuthorization(t *testing.T) {
	for _, auth := range []string{"relay", "auto"} {
		t.Run(auth, func(t *testing.T) { mirrorSeesNoAuthorization(t, auth) })
	}
}

func mirrorSeesNoAuthorization(t *testing.T, auth string) {
	t.Helper()
	mirror := newBait(t, "Bearer")
	own := quirky.New(t, private("Bearer"))
	own.Add(repo, "v1", image)
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: own.Host(), Upstreams: []string{mirror.URL, own.URL()}, ClientAuth: auth}},
	})
	h := http.Header{"Authorization": {"Bearer canary-token-of-a-client"}}
	s.Get(of(own.Host(), "manifests/v1"), h)
	s.Get("/v2/auth?service=sidemirror&scope=repository:"+repo+":pull&ns="+own.Host(), http.Header{"Authorization": {"Basic cm9ib3Q6eA=="}})
	if caught := mirror.caught(); len(caught) != 0 {
		t.Errorf("the mirror got %d of a client's credentials", len(caught))
	}
}
