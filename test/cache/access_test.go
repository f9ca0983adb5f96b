package cache

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// other is an image in open/app that no test is about.
var other = quirky.NewImage(false, "other", 1000)

// everything is what there is to ask of image in a repository.
func everything(repository string) []string {
	all := []string{path(repository, "manifests/v1"), path(repository, "manifests/"+image.Digest.String())}
	for _, b := range image.Blobs {
		all = append(all, path(repository, "blobs/"+b.Digest.String()))
	}
	return all
}

// refused asks for each path, by HEAD and GET, and fails the test unless it is
// answered with one of the statuses and no content.
func (r *rig) refused(client *http.Client, paths []string, statuses ...int) {
	r.t.Helper()
	for _, p := range paths {
		for _, method := range []string{"HEAD", "GET"} {
			a := r.DoWith(client, method, p, nil)
			allowed := false
			for _, s := range statuses {
				allowed = allowed || a.Status == s
			}
			if !allowed {
				r.t.Errorf("%s %s: status %d, want one of %v", method, p, a.Status, statuses)
			}
		}
	}
}

func TestWhatRootPulledIsNotServedToAnUntrustedUser(t *testing.T) {
	for _, scheme := range []string{"Bearer", "Basic"} {
		r := start(t, private(scheme), nil)
		r.up.Add("open/app", "v1", other)
		nobody := harness.ClientAs(t, harness.Untrusted)
		r.pull()
		r.keeps(image.Blobs...)
		r.refused(nobody, everything(repo), 401, 403)
		r.pullAs(nobody, "open/app", other)
		// A grant for one repository is none for another, and an untrusted user's is not root's.
		r.refused(nobody, everything(repo), 401, 403)
		r.pull()
		r.away()
		r.refused(nobody, everything(repo), 401, 403, 502, 504)
	}
}

func TestWhatOneRepositoryHasIsNotGivenThroughAnother(t *testing.T) {
	r := start(t, private("Bearer"), nil)
	r.up.Add("open/app", "v1", other)
	r.pull()
	r.keeps(image.Blobs...)
	nobody := harness.ClientAs(t, harness.Untrusted)
	for _, client := range []*http.Client{nobody, harness.Client(t)} {
		r.pullAs(client, "open/app", other)
		r.refused(client, everything("open/app")[1:], 404)
	}
	r.away()
	r.refused(nobody, everything("open/app")[1:], 502, 504)
}

// A user who can push to a repository can push a manifest that lists any digest, and digests of
// layers are no secrets. So the upstream must confirm that the repository has the layer.
func TestManifestThatListsAnothersLayerDoesNotOpenIt(t *testing.T) {
	r := start(t, private("Bearer"), nil)
	r.pull()
	r.keeps(image.Blobs...)
	bait := composed(other.Blobs[0], layer)
	bait.Blobs = bait.Blobs[:1] // the upstream has not the layer there
	r.up.Add("open/bait", "v1", bait)
	nobody := harness.ClientAs(t, harness.Untrusted)
	r.whole("the bait", r.DoWith(nobody, "GET", path("open/bait", "manifests/v1"), nil), bait.Bytes)
	r.refused(nobody, []string{path("open/bait", "blobs/"+layer.Digest.String())}, 404)
}

func TestWhatOneRegistryHasIsNotGivenThroughAnother(t *testing.T) {
	second := quirky.New(t, quirky.Options{})
	second.Add(repo, "v1", other)
	r := start(t, quirky.Options{}, func(_ *quirky.Server, h *harness.Options) {
		h.Registries = append(h.Registries, harness.Registry{Name: "s.test", Upstreams: []string{second.URL()}})
	})
	r.pull()
	r.keeps(image.Blobs...)
	through := func(what string) string { return "/v2/" + repo + "/" + what + "?ns=s.test" }
	r.whole("the other registry's tag", r.Get(through("manifests/v1"), nil), other.Bytes)
	r.refused(harness.Client(t), []string{
		through("manifests/" + image.Digest.String()), through("blobs/" + layer.Digest.String()),
	}, 404)

	// Once it has the same layer, its word is enough, and nothing is fetched twice.
	second.Add(repo, "v2", image)
	second.Forget()
	r.whole("the layer that both have", r.Get(through("blobs/"+layer.Digest.String()), nil), layer.Bytes)
	if n := second.Count(quirky.Registry, "GET", "/blobs/"); n != 0 {
		t.Errorf("a layer that is kept was fetched %d times from the other registry", n)
	}
}

func TestWhatOneUpstreamHadIsNotGivenForItsSuccessor(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	r.pull()
	r.keeps(image.Blobs...)
	successor := quirky.New(t, quirky.Options{})
	successor.Add(repo, "v1", other)
	h := r.options
	h.Registries = []harness.Registry{{Name: name, Upstreams: []string{successor.URL()}}}
	r.Reload(h)
	r.Eventually("the new upstream is asked", func() bool { return len(successor.All()) > 0 })
	r.whole("the tag", r.Get(byTag(), nil), other.Bytes)
	r.refused(harness.Client(t), everything(repo)[1:], 404)
}

func TestRevokedAccessEndsWhenTheUpstreamRefuses(t *testing.T) {
	for _, status := range []int{401, 403} {
		r := start(t, private("Bearer"), nil)
		r.pull()
		r.keeps(image.Blobs...)
		r.answers(status)
		r.refused(harness.Client(t), everything(repo), status)
		// It does not come back by the upstream's going away.
		r.away()
		r.refused(harness.Client(t), everything(repo), 502, 504)
		next := r.restart(nil)
		next.refused(harness.Client(t), everything(repo), 502, 504)
		next.here()
		again := next.restart(nil) // the upstream is left alone for a while by one that missed it
		again.pull()
		again.asked("GET", "/blobs/", 0)
	}
}

func TestRefusalsOfTheUpstreamAreNotPaperedOver(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 410} {
		r := start(t, quirky.Options{}, nil)
		r.pull()
		r.keeps(image.Blobs...)
		if status != 401 && status != 403 {
			r = r.restart(nil) // without the grants that it remembers
		}
		r.answers(status)
		for _, p := range everything(repo) {
			for _, method := range []string{"HEAD", "GET"} {
				if a := r.Do(method, p, nil); a.Status < 400 || a.Header.Get("Warning") != "" {
					t.Errorf("the upstream answers %d, we to %s %s %d, Warning %q", status, method, p, a.Status, a.Header.Get("Warning"))
				}
			}
		}
	}
}

func TestTokenOfAnotherClientOpensNothingInRelayMode(t *testing.T) {
	o := private("Bearer")
	r := start(t, o, func(_ *quirky.Server, h *harness.Options) {
		h.Registries[0].Relay, h.Logins = true, nil
	})
	bearer := r.token()
	with := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	for _, p := range everything(repo) {
		r.status("with a token: "+p, r.Get(p, with(bearer)), 200)
	}
	r.keeps(image.Blobs...)
	for _, p := range everything(repo) {
		r.status("without a token: "+p, r.Get(p, nil), 401)
		r.status("with another: "+p, r.Get(p, with("token-of-nobody")), 401)
	}
	r.up.RevokeTokens()
	r.status("the tag with a revoked token", r.Do("HEAD", byTag(), with(bearer)), 401)
	for _, p := range everything(repo) {
		r.status("with a revoked token: "+p, r.Get(p, with(bearer)), 401)
	}
	// A token's grant is not stretched while the upstream is away.
	fresh := r.token()
	r.status("with a new token", r.Get(byTag(), with(fresh)), 200)
	r.away()
	next := r.restart(nil)
	for _, p := range everything(repo) {
		if a := next.Get(p, with(fresh)); a.Status < 500 {
			t.Errorf("upstream away, a token that cannot be checked: %s returned %d", p, a.Status)
		}
	}
}

// token gets one from the upstream's token server as a client does, through us.
func (r *rig) token() string {
	r.t.Helper()
	basic := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	a := r.Get("/v2/auth?service=sidemirror&scope=repository:"+repo+":pull&ns="+name, http.Header{"Authorization": {"Basic " + basic}})
	var body struct{ Token string }
	if err := json.Unmarshal(a.Body, &body); err != nil || body.Token == "" {
		r.t.Fatalf("the token server's answer is %d %q, %v", a.Status, a.Body, err)
	}
	return body.Token
}
