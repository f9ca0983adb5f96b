package guests

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// asked returns the Authorization headers with which the registry was asked for something.
func (r *rig) asked(method, path string) (headers []string) {
	for _, request := range r.registry.Requests(quirky.Registry, method, path) {
		if h := request.Authorization(); h != "" {
			headers = append(headers, h)
		}
	}
	return headers
}

// logins counts the tokens that were fetched with sidemirror's login.
func (r *rig) logins() int {
	return len(slices.DeleteFunc(r.registry.Requests(quirky.Token, "", ""), func(q quirky.Request) bool { return q.Authorization() == "" }))
}

func TestPullOfAGuestCountsAgainstTheQuotaOfTheLogin(t *testing.T) {
	r := newRig(t, true)
	got := r.get(r.of(public, "manifests/v1"), "")
	if got.Status != http.StatusOK || !bytes.Equal(got.Body, image.Bytes) {
		t.Fatalf("a public manifest: %d %v", got.Status, got.Err)
	}
	blob := "/v2/" + public + "/blobs/" + image.Blobs[1].Digest.String()
	if got := r.get(r.of(public, "blobs/"+image.Blobs[1].Digest.String()), ""); !bytes.Equal(got.Body, image.Blobs[1].Bytes) {
		t.Fatalf("a public layer: %d %v", got.Status, got.Err)
	}
	proof := r.asked(http.MethodHead, "/v2/"+public+"/manifests/v1")
	spent := r.asked(http.MethodGet, "/v2/"+public+"/manifests/"+image.Digest.String())
	if len(proof) != 1 || len(spent) != 1 || proof[0] == spent[0] || r.logins() != 1 {
		t.Fatalf("the manifest was asked for %d times without the login and %d times with it, which was sent %d times", len(proof), len(spent), r.logins())
	}
	if plain := r.asked(http.MethodGet, "/v2/"+public+"/manifests/v1"); len(plain) != 0 {
		t.Errorf("the manifest was fetched %d times without the login", len(plain))
	}
	if layers := r.asked(http.MethodGet, blob); len(layers) == 0 || slices.Contains(layers, spent[0]) {
		t.Errorf("the layer was asked for with the login, or not at all: %d times", len(layers))
	}
	if log := r.sidemirror.Log(); strings.Count(log, "credential=") != 1 {
		t.Errorf("the log does not say once that a login was used:\n%s", log)
	}
}

func TestPrivateImageNeverComesOutThroughTheQuota(t *testing.T) {
	r := newRig(t, true)
	// The login can get it.
	if own := r.sidemirror.Get(r.of(private, "manifests/v1"), nil); own.Status != http.StatusOK {
		t.Fatalf("the host's engine gets %d: %s", own.Status, own.Body)
	}
	before := r.logins()
	for range 2 {
		for _, what := range []string{"manifests/v1", "manifests/" + image.Digest.String(), "blobs/" + image.Blobs[1].Digest.String(), "tags/list", "referrers/" + image.Digest.String()} {
			if got := r.get(r.of(private, what), ""); got.Status == http.StatusOK {
				t.Errorf("a guest gets %s of a private repository", what)
			}
		}
	}
	if n := r.logins(); n != before {
		t.Errorf("the login was sent %d times for a private repository", n-before)
	}
}

func TestImageThatTurnsPrivateDoesNotComeOutThroughTheQuota(t *testing.T) {
	r := newRig(t, true)
	if got := r.get(r.of(public, "manifests/v1"), ""); got.Status != http.StatusOK || r.logins() != 1 {
		t.Fatalf("while it is public: %d, and the login was sent %d times", got.Status, r.logins())
	}
	r.registry.Set(func(o *quirky.Options) { o.Auth.Private = []string{""} })
	r.registry.RevokeTokens()
	moved := quirky.NewImage(false, "pushed later", 1000)
	r.registry.Add(public, "v1", moved)
	r.registry.Add(public, "v2", moved)
	sent := r.logins()
	for _, what := range []string{"manifests/v1", "manifests/v2", "manifests/" + moved.Digest.String(), "blobs/" + moved.Blobs[1].Digest.String(), "blobs/" + image.Blobs[1].Digest.String()} {
		if got := r.get(r.of(public, what), ""); got.Status == http.StatusOK {
			t.Errorf("a guest gets %s of a repository that has become private", what)
		}
	}
	if n := r.logins(); n != sent {
		t.Errorf("the login was sent %d times for a repository that has become private", n-sent)
	}
	if own := r.sidemirror.Get(r.of(public, "manifests/v2"), nil); own.Status != http.StatusOK {
		t.Errorf("the host's engine gets %d", own.Status)
	}
}

// The guest has been shown one manifest, and fetches that with the login later. That the registry gives it
// to the login says nothing about what else the guest may have.
func TestManifestThatALoginFetchesOpensNothingElse(t *testing.T) {
	r := newRig(t, true)
	if got := harness.Fetch(r.client, http.MethodHead, "http://"+at+r.of(public, "manifests/"+image.Digest.String()), nil); got.Status != http.StatusOK {
		t.Fatalf("while it is public: %d", got.Status)
	}
	r.registry.Set(func(o *quirky.Options) { o.Auth.Private = []string{""} })
	r.registry.RevokeTokens()
	secret := quirky.NewImage(false, "pushed later", 1000)
	r.registry.Add(public, "v2", secret)
	later := []string{"manifests/" + secret.Digest.String(), "blobs/" + secret.Blobs[1].Digest.String()}
	for _, what := range append(later, "manifests/v2") {
		if own := r.sidemirror.Get(r.of(public, what), nil); own.Status != http.StatusOK {
			t.Fatalf("the host's engine gets %d for %s", own.Status, what)
		}
	}
	for _, what := range later {
		if got := r.get(r.of(public, "manifests/"+image.Digest.String()), ""); what == later[0] && (got.Status != http.StatusOK || r.logins() == 0) {
			t.Fatalf("what was shown is not fetched with the login: %d", got.Status)
		}
		if got := r.get(r.of(public, what), ""); got.Status == http.StatusOK {
			t.Errorf("a guest gets %s, which was pushed after the repository had become private", what)
		}
	}
}

func TestGuestIsServedWithoutTheLoginIfThatIsRefused(t *testing.T) {
	r := newRig(t, true)
	r.registry.Set(func(o *quirky.Options) { o.Auth.Users = map[string]string{user: "another one"} })
	if got := r.get(r.of(public, "manifests/v1"), ""); got.Status != http.StatusOK || !bytes.Equal(got.Body, image.Bytes) {
		t.Errorf("a guest gets %d: %s", got.Status, got.Body)
	}
}

func TestOtherUsersOfThisHostHaveNoQuota(t *testing.T) {
	r := newRig(t, true)
	if got := r.sidemirror.DoWith(untrusted(t), http.MethodGet, r.of(public, "manifests/v1"), nil); got.Status != http.StatusOK {
		t.Errorf("an untrusted user gets %d: %s", got.Status, got.Body)
	}
	if n := r.logins(); n != 0 {
		t.Errorf("the login was sent %d times for an untrusted user", n)
	}
}
