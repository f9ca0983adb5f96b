package cache

import (
	"net/http"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// warmOver fills a cache and starts another daemon on it whose upstream hangs up on
// everybody.
func warmOver(t *testing.T, o quirky.Options, client func(*testing.T) *http.Client, change func(*harness.Options)) *rig {
	t.Helper()
	r := start(t, o, nil)
	r.pullAs(client(t), repo, image)
	r.keeps(image.Blobs...)
	r.Stop()
	h := r.options
	r.away() // the same upstream: what a former one said would not count
	if change != nil {
		change(&h)
	}
	return &rig{Sidemirror: harness.Start(t, h), up: r.up, t: t, folder: r.folder, options: h}
}

func root(t *testing.T) *http.Client   { return harness.Client(t) }
func nobody(t *testing.T) *http.Client { return harness.ClientAs(t, harness.Untrusted) }

// offline pulls the kept image by tag and by digest, in both forms of naming.
func (r *rig) offline(client *http.Client) {
	r.t.Helper()
	for _, p := range everything(repo) {
		for _, q := range []string{p, "/v2/" + name + p[len("/v2"):]} {
			r.status("HEAD "+q, r.DoWith(client, "HEAD", q, nil), 200)
			if a := r.DoWith(client, "GET", q, nil); a.Status != 200 || a.Err != nil {
				r.t.Errorf("GET %s: status %d, %v%s", q, a.Status, a.Err, a.Says())
			}
		}
	}
	r.pullAs(client, repo, image)
}

func TestRestartWithTheUpstreamAwayServesTheSameIdentityAsBefore(t *testing.T) {
	t.Run("root with the same credential", func(t *testing.T) {
		r := warmOver(t, private("Bearer"), root, nil)
		r.offline(root(t))
		r.refused(nobody(t), everything(repo), 401, 403, 502, 504)
	})
	t.Run("anonymous", func(t *testing.T) {
		r := warmOver(t, quirky.Options{}, nobody, nil)
		r.offline(nobody(t))
	})
	t.Run("another credential", func(t *testing.T) {
		r := warmOver(t, private("Bearer"), root, func(h *harness.Options) {
			h.Logins = map[string]string{name: user + ":another-password-77c2"}
		})
		r.refused(root(t), everything(repo), 401, 403, 502, 504)
	})
	t.Run("none any more", func(t *testing.T) {
		r := warmOver(t, private("Bearer"), root, func(h *harness.Options) { h.Logins = nil })
		r.refused(root(t), everything(repo), 401, 403, 502, 504)
	})
	t.Run("root not trusted any more", func(t *testing.T) {
		r := warmOver(t, private("Bearer"), root, func(h *harness.Options) { h.TrustUIDs = []uint32{} })
		r.refused(root(t), everything(repo), 401, 403, 502, 504)
	})
}

func TestRestartAsksOnceForTheGrantAndFetchesNothingAgain(t *testing.T) {
	r := start(t, private("Bearer"), nil)
	r.pull()
	r.keeps(image.Blobs...)
	next := r.restart(nil)
	next.pull()
	next.asked("GET", "/manifests/", 0)
	next.asked("", "/blobs/", 0)
	if n := next.up.Count(quirky.Registry, "HEAD", "/manifests/"); n > 2 { // with and without a token
		t.Errorf("%d HEADs for one grant", n)
	}
}
