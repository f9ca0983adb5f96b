package traps

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// signed are the options of an upstream that sends its clients to another host for
// blobs, as S3 wants it.
func signed() quirky.Options {
	o := withLogin("Bearer")
	o.Blobs = quirky.Blobs{Redirect: 307, RefuseAuthorization: true, RefuseHEAD: true, NoDigest: true}
	return o
}

// Source: opa#6728.
func TestAuthorizationIsNotKeptOverARedirect(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		o := signed()
		o.Blobs.Redirect = status
		r := start(t, o, nil)
		a := r.Get(blobPath(layer), http.Header{"X-Custom": {"x"}, "Cookie": {"a=b"}})
		r.whole(fmt.Sprint(status), a, layer.Bytes)
		if a.Header.Get("Location") != "" {
			t.Error("the engine was shown the redirect")
		}
		seen := r.up.Requests(quirky.BlobStore, "", "")
		if len(seen) != 1 {
			t.Fatalf("%d requests came to the blob store, want 1", len(seen))
		}
		for header := range seen[0].Header {
			switch header {
			case "Accept", "Accept-Encoding", "User-Agent", "Range", "If-Range":
			default:
				t.Errorf("%s was sent to the blob store", header)
			}
		}
	}
}

// Source: opa#6728.
func TestTokenStaysWithItsOriginWhereverTheRedirectGoes(t *testing.T) {
	for what, to := range map[string]func(up *quirky.Server, signed string) string{
		"another host": func(_ *quirky.Server, s string) string { return s },
		"a path of the token server's host": func(up *quirky.Server, s string) string {
			return up.TokenOrigin() + "/token/elsewhere"
		},
	} {
		t.Run(what, func(t *testing.T) {
			o := signed()
			o.Auth.ForeignHost = true
			var up *quirky.Server
			o.Blobs.Location = func(s string) string { return to(up, s) }
			r := start(t, o, func(u *quirky.Server, _ *harness.Options) { up = u })
			r.Get(blobPath(layer), nil)
			for _, q := range up.All() {
				if q.Part != quirky.Registry && q.Path != "/token" && q.Authorization() != "" {
					t.Errorf("Authorization was sent to %s%s", q.Part, q.Path)
				}
			}
		})
	}
}

// Source: rpardini/docker-registry-proxy#26.
func TestSignedURLIsNotUsedTwice(t *testing.T) {
	o := signed()
	o.Blobs.OneUse = true
	r := start(t, o, nil)
	for range 3 {
		r.whole("the layer", r.Get(blobPath(layer), nil), layer.Bytes)
	}
	seen := map[string]bool{}
	for _, q := range r.up.Requests(quirky.BlobStore, "GET", "") {
		s := q.Query.Get("X-Signature")
		if seen[s] {
			t.Error("a signed URL was used twice")
		}
		seen[s] = true
	}
}

// Source: rpardini/docker-registry-proxy#26.
func TestRequestResumedAfterItsSignatureIsUsedUpAsksForANewOne(t *testing.T) {
	o := signed()
	o.Blobs.OneUse, o.Blobs.Fault = true, quirky.Fault{Kind: quirky.Reset, At: len(layer.Bytes) / 2, Times: 1}
	r := start(t, o, nil)
	r.whole("the layer", r.Get(blobPath(layer), nil), layer.Bytes)
	r.count(quirky.BlobStore, "GET", "", 2)
}

func TestRangeIsKeptOverARedirect(t *testing.T) {
	r := start(t, signed(), nil)
	a := r.Get(blobPath(layer), http.Header{"Range": {"bytes=1000-1999"}})
	r.status("a range", a, 206)
	if !bytes.Equal(a.Body, layer.Bytes[1000:2000]) {
		t.Errorf("%d bytes, not those asked for", len(a.Body))
	}
	for _, q := range r.up.Requests(quirky.BlobStore, "GET", "") {
		if q.Header.Get("Range") != "bytes=1000-1999" || q.Sent != 1000 {
			t.Errorf("the blob store was asked for Range %q and sent %d bytes", q.Header.Get("Range"), q.Sent)
		}
	}
}

func TestRedirectWithinTheRegistryIsFollowedWhetherItTakesTheTokenOrRefusesIt(t *testing.T) {
	for _, refuses := range []bool{false, true} { // S3 refuses a token next to a signature
		o := signed()
		o.Blobs.Relative, o.Blobs.RefuseAuthorization = true, refuses
		r := start(t, o, nil)
		r.whole("the layer", r.Get(blobPath(layer), nil), layer.Bytes)
	}
}

// Go clients keep the token over such a redirect, and registries count on it.
func TestRedirectWithinTheRegistryIsAuthorizedAndItsChallengeAnswered(t *testing.T) {
	for _, revoked := range []bool{false, true} {
		var r *rig
		o := withLogin("Bearer")
		o.Intercept = func(part quirky.Part, w http.ResponseWriter, q *http.Request) bool {
			if part != quirky.Registry || !strings.Contains(q.URL.Path, "/blobs/") || q.URL.Query().Has("moved") || q.Header.Get("Authorization") == "" {
				return false
			}
			if revoked {
				r.up.RevokeTokens()
			}
			w.Header().Set("Location", q.URL.Path+"?moved=1")
			w.WriteHeader(http.StatusTemporaryRedirect)
			return true
		}
		r = start(t, o, nil)
		r.whole("the layer", r.Get(blobPath(layer), nil), layer.Bytes)
		r.status("its HEAD", r.Do("HEAD", blobPath(image.Blobs[0]), nil), 200)
	}
}

func TestUnauthorizedBlobStoreGetsNoTokenExchange(t *testing.T) {
	o := signed()
	o.Intercept = func(part quirky.Part, w http.ResponseWriter, _ *http.Request) bool {
		if part == quirky.BlobStore {
			w.Header().Set("WWW-Authenticate", `Basic realm="give"`)
			w.WriteHeader(401)
		}
		return part == quirky.BlobStore
	}
	r := start(t, o, nil)
	a := r.Get(blobPath(layer), nil)
	if a.Status < 400 {
		t.Errorf("status %d for a blob that could not be had", a.Status)
	}
	if a.Header.Get("WWW-Authenticate") != "" {
		t.Error("the blob store's challenge was passed on")
	}
	r.count(quirky.BlobStore, "", "", 1)
	r.count(quirky.Token, "", "", 1)
}

func TestRedirectLoopIsEnded(t *testing.T) {
	o := signed()
	var up *quirky.Server
	o.Intercept = func(part quirky.Part, w http.ResponseWriter, r *http.Request) bool {
		if part == quirky.BlobStore {
			http.Redirect(w, r, up.BlobOrigin()+"/signed/again", http.StatusTemporaryRedirect)
		}
		return part == quirky.BlobStore
	}
	r := start(t, o, func(u *quirky.Server, _ *harness.Options) { up = u })
	r.status("a loop", r.Get(blobPath(layer), nil), 502)
	if n := up.Count(quirky.BlobStore, "", ""); n > 5 {
		t.Errorf("%d redirects were followed, want 5 at most", n)
	}
}

func TestRedirectToPlainHTTPIsRefused(t *testing.T) {
	plain := quirky.New(t, quirky.Options{})
	o := signed()
	o.TLS = true
	o.Blobs.Location = func(s string) string { return plain.BlobOrigin() + s[strings.Index(s, "/signed/"):] }
	r := start(t, o, nil)
	r.status("an http redirect of an https upstream", r.Get(blobPath(layer), nil), 502)
	if n := len(plain.All()); n != 0 {
		t.Errorf("%d requests went out without TLS", n)
	}
}

func TestRedirectToMetadataIsRefused(t *testing.T) {
	for _, host := range []string{
		"169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "100.100.100.200", "[::ffff:a9fe:a9fe]",
		"2852039166", "0xa9fea9fe", "169.254.43518", "0251.0376.0251.0376", "0.0.0.0", "metadata.test",
	} {
		t.Run(host, func(t *testing.T) {
			o := signed()
			o.Blobs.Location = func(string) string { return "http://" + host + "/latest/meta-data" }
			r := start(t, o, func(_ *quirky.Server, h *harness.Options) {
				if host == "metadata.test" {
					h.Hosts = "169.254.169.254 metadata.test\n"
				}
			})
			a := r.Get(blobPath(layer), nil)
			r.status("a redirect to "+host, a, 502)
			if strings.Contains(string(a.Body), "meta-data") {
				t.Error("the error names more of the URL than its host")
			}
		})
	}
}

func TestLocationThatIsNoPlaceIsRefused(t *testing.T) {
	for _, location := range []string{"", "file:///etc/passwd", "ftp://127.0.0.2/x", "http://u:p@127.0.0.2/x", "http://", "://", "javascript:1"} {
		o := signed()
		o.Blobs.Location = func(string) string { return location }
		r := start(t, o, nil)
		r.status(fmt.Sprintf("%q", location), r.Get(blobPath(layer), nil), 502)
		r.count(quirky.BlobStore, "", "", 0)
	}
}
