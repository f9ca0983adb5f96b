package traps

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// secretsSeen are the tokens and signatures that the daemon came to know.
func (r *rig) secretsSeen() []string {
	secrets := []string{password}
	for _, q := range r.up.All() {
		if _, token, ok := strings.Cut(q.Authorization(), " "); ok {
			secrets = append(secrets, token)
		}
		if s := q.Query.Get("X-Signature"); s != "" {
			secrets = append(secrets, s)
		}
	}
	return secrets
}

// The test provokes every error that it can, and looks for secrets in everything that is printed:
// answers, headers, the page, and the log at its most verbose level.
func TestCanarySecretsAreFoundNowhere(t *testing.T) {
	for what, change := range map[string]func(*quirky.Options){
		"all is well":       func(*quirky.Options) {},
		"foreign realm":     func(o *quirky.Options) { o.Auth.Realm = "http://evil.test/token?secret=" + password },
		"token server 500":  func(o *quirky.Options) { o.Auth.TokenStatus, o.Auth.TokenBody = 500, []byte(password) },
		"token server html": func(o *quirky.Options) { o.Auth.TokenStatus, o.Auth.TokenBody = 200, []byte("<"+password) },
		"password refused":  func(o *quirky.Options) { o.Auth.Users = map[string]string{user: "other"} },
		"blob store 403":    func(o *quirky.Options) { o.Blobs.Life = -1 },
		"blob store unreachable": func(o *quirky.Options) {
			o.Blobs.Location = func(s string) string { return strings.Replace(s, "127.0.0.2", "127.0.0.3", 1) }
		},
		"metadata": func(o *quirky.Options) {
			o.Blobs.Location = func(s string) string { return strings.Replace(s, "127.0.0.2", "169.254.169.254", 1) }
		},
		"blob reset":        func(o *quirky.Options) { o.Blobs.Fault = quirky.Fault{Kind: quirky.Reset, At: 100, Times: 9} },
		"blob tampered":     func(o *quirky.Options) { o.Blobs.Fault = quirky.Fault{Kind: quirky.Flip, At: 100} },
		"manifest tampered": func(o *quirky.Options) { o.Manifest.Fault = quirky.Fault{Kind: quirky.Flip, At: 100} },
		"rate limit":        func(o *quirky.Options) { o.Limit = quirky.Limit{Status: 429, Body: password} },
		"upstream 500":      func(o *quirky.Options) { o.Limit = quirky.Limit{Status: 500, Body: password} },
		"upstream 403":      func(o *quirky.Options) { o.Limit = quirky.Limit{Status: 403, Body: password} },
	} {
		for _, relay := range []bool{false, true} {
			t.Run(fmt.Sprint(what, " relay ", relay), func(t *testing.T) {
				o := signed()
				change(&o)
				r := start(t, o, func(_ *quirky.Server, h *harness.Options) { h.Registries[0].Relay = relay })
				var told strings.Builder
				tell := func(a harness.Answer) string {
					fmt.Fprintf(&told, "%d %v %v\n", a.Status, a.Header, a.Err)
					if a.Status != 200 || len(a.Body) < 10000 {
						told.Write(a.Body)
					}
					return string(a.Body)
				}
				header := http.Header{}
				if relay {
					// What the client itself is given here, it may know.
					if a := r.Get("/v2/auth?ns="+name+"&scope=repository:team/app:pull", basic(user, password)); a.Status == 200 && what == "all is well" {
						header.Set("Authorization", "Bearer "+jsonString(t, a.Body, "token"))
					}
					tell(r.Get("/v2/auth?ns="+name+"&scope=nonsense", basic(user, password)))
				}
				for _, p := range []string{"/", "/v2/", path("manifests/v1"), path("manifests/" + image.Digest.String()), blobPath(layer), blobPath(image.Blobs[0]), path("tags/list")} {
					tell(r.Get(p, header))
					tell(r.Do("HEAD", p, header))
				}
				for _, secret := range r.secretsSeen() {
					if strings.Contains(told.String(), secret) {
						t.Errorf("an answer holds a secret: %.12s…", secret)
					}
					if strings.Contains(r.Log(), secret) {
						t.Errorf("the log holds a secret: %.12s…", secret)
					}
				}
			})
		}
	}
}

func TestUpstreamsHeadersAreNotPassedOnUnlessKnown(t *testing.T) {
	o := quirky.Options{Intercept: func(_ quirky.Part, w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Set-Cookie", "session=canary")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("X-Upstream-Secret", "canary")
		w.Header().Set("Location", "http://evil.test/")
		return false
	}}
	r := start(t, o, nil)
	for _, p := range []string{path("manifests/v1"), blobPath(layer), path("tags/list"), path("manifests/absent")} {
		a := r.Get(p, nil)
		for _, h := range []string{"Set-Cookie", "Access-Control-Allow-Origin", "X-Upstream-Secret", "Location"} {
			if a.Header.Get(h) != "" {
				t.Errorf("%s: %s was passed on", p, h)
			}
		}
	}
}
