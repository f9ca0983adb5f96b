package traps

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func jsonString(t *testing.T, body []byte, member string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	s, _ := m[member].(string)
	if s == "" {
		t.Fatalf("no %q in %s", member, body)
	}
	return s
}

func TestMalformedOrForeignRealmIsNotDialled(t *testing.T) {
	thief := quirky.New(t, quirky.Options{})
	evil := thief.URL() + "/token"
	for what, challenge := range map[string]quirky.Challenge{
		"foreign host": func(_, s, c string) []string { return []string{fmt.Sprintf(`Bearer realm="%s",service="%s"`, evil, s)} },
		"userinfo": func(r, _, _ string) []string {
			return []string{`Bearer realm="` + strings.Replace(r, "http://", "http://a:b@", 1) + `"`}
		},
		"host as userinfo": func(r, _, _ string) []string {
			return []string{`Bearer realm="http://` + hostOf(r) + `@` + hostOf(evil) + `/token"`}
		},
		"duplicate realm": func(r, _, _ string) []string { return []string{fmt.Sprintf(`Bearer realm="%s",realm="%s"`, r, evil)} },
		"two bearers": func(r, _, _ string) []string {
			return []string{fmt.Sprintf(`Bearer realm="%s"`, r), fmt.Sprintf(`Bearer realm="%s"`, evil)}
		},
		"missing realm":      func(string, string, string) []string { return []string{`Bearer service="x"`} },
		"unterminated quote": func(r, _, _ string) []string { return []string{`Bearer realm="` + r} },
		"no url":             func(string, string, string) []string { return []string{`Bearer realm="token"`} },
		"another scheme": func(r, _, _ string) []string {
			return []string{`Bearer realm="` + strings.Replace(r, "http:", "ftp:", 1) + `"`}
		},
		"127.1": func(r, _, _ string) []string {
			return []string{`Bearer realm="` + strings.Replace(r, "127.0.0.1", "127.1", 1) + `"`}
		},
		"decimal": func(r, _, _ string) []string {
			return []string{`Bearer realm="` + strings.Replace(r, "127.0.0.1", "2130706433", 1) + `"`}
		},
		"hexadecimal": func(r, _, _ string) []string {
			return []string{`Bearer realm="` + strings.Replace(r, "127.0.0.1", "0x7f000001", 1) + `"`}
		},
		"mapped": func(r, _, _ string) []string {
			return []string{`Bearer realm="` + strings.Replace(r, "127.0.0.1", "[::ffff:7f00:1]", 1) + `"`}
		},
		"metadata": func(string, string, string) []string {
			return []string{`Bearer realm="http://[::ffff:a9fe:a9fe]/token"`}
		},
		"9 KiB": func(r, _, _ string) []string {
			return []string{`Bearer realm="` + r + `",service="` + strings.Repeat("x", 9<<10) + `"`}
		},
	} {
		t.Run(what, func(t *testing.T) {
			o := withLogin("Bearer")
			o.Auth.Challenge = challenge
			r := start(t, o, nil)
			r.status("a pull", r.Get(path("manifests/v1"), nil), 502)
			r.count(quirky.Token, "", "", 0)
		})
	}
	if n := len(thief.All()); n != 0 {
		t.Errorf("%d requests came to a foreign realm", n)
	}
}

func TestHTTPRealmOfAnHTTPSUpstreamIsNotAsked(t *testing.T) {
	thief := quirky.New(t, quirky.Options{})
	o := withLogin("Bearer")
	o.TLS, o.Auth.Realm = true, thief.URL()+"/token"
	r := start(t, o, nil)
	r.status("a pull", r.Get(path("manifests/v1"), nil), 502)
	if n := len(thief.All()); n != 0 {
		t.Errorf("%d requests came to the http realm", n)
	}
}

func TestTokenEndpointsRedirectIsNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, identity := range []bool{false, true} {
			t.Run(fmt.Sprint(status, identity), func(t *testing.T) {
				thief := quirky.New(t, quirky.Options{})
				o := withLogin("Bearer")
				o.Intercept = func(part quirky.Part, w http.ResponseWriter, r *http.Request) bool {
					if part == quirky.Token {
						http.Redirect(w, r, thief.URL()+"/token", status)
					}
					return part == quirky.Token
				}
				r := start(t, o, func(_ *quirky.Server, h *harness.Options) {
					if identity {
						h.Logins, h.IdentityTokens = nil, map[string]string{name: "canary-identity-77aa"}
					}
				})
				r.status("a pull", r.Get(path("manifests/v1"), nil), 502)
				if n := len(thief.All()); n != 0 {
					t.Errorf("%d requests followed the redirect", n)
				}
			})
		}
	}
}

func TestTokenBodyThatIsNoTokenIsNeverUsed(t *testing.T) {
	for what, body := range map[string]string{
		"html":               "<html>sign in</html>",
		"empty object":       "{}",
		"empty token":        `{"token":"","access_token":""}`,
		"token of line ends": `{"token":"a\r\nX-Evil: 1"}`,
		"a number":           `{"token":7}`,
		"nothing":            "",
		"cut json":           `{"token":"abc`,
		"over 64 KiB":        `{"token":"` + strings.Repeat("x", 65<<10) + `"}`,
	} {
		t.Run(what, func(t *testing.T) {
			o := withLogin("Bearer")
			o.Auth.TokenStatus, o.Auth.TokenBody = 200, []byte(body)
			r := start(t, o, nil)
			r.status("a pull", r.Get(path("manifests/v1"), nil), 502)
			for _, q := range r.up.Requests(quirky.Registry, "", "") {
				if q.Authorization() != "" {
					t.Errorf("the registry was sent Authorization %.40q", q.Authorization())
				}
			}
			r.up.Set(func(o *quirky.Options) { o.Auth.TokenStatus, o.Auth.TokenBody = 0, nil })
			r.Eventually("a pull succeeds once the token server works again", func() bool {
				return r.Get(path("manifests/v1"), nil).Status == 200
			})
		})
	}
}

func TestTokenBodyOf256MiBIsNotRead(t *testing.T) {
	o := withLogin("Bearer")
	o.Intercept = func(part quirky.Part, w http.ResponseWriter, r *http.Request) bool {
		if part != quirky.Token {
			return false
		}
		chunk := make([]byte, 1<<20)
		for range 256 {
			if _, err := w.Write(chunk); err != nil {
				break
			}
		}
		return true
	}
	r := start(t, o, nil)
	r.status("a pull", r.Get(path("manifests/v1"), nil), 502)
	for _, q := range r.up.Requests(quirky.Token, "", "") {
		if q.Sent > 16<<20 {
			t.Errorf("%d MiB of the token server's answer were taken", q.Sent>>20)
		}
	}
}

func TestTokenServerThatStallsIsGivenUp(t *testing.T) {
	t.Parallel() // it waits more than it works
	o := withLogin("Bearer")
	o.Auth.TokenStatus, o.Auth.TokenBody, o.Auth.TokenStall = 200, []byte(`{"token":"`), true
	r := start(t, o, nil)
	if a := r.Get(path("manifests/v1"), nil); a.Status != 502 && a.Status != 504 {
		t.Errorf("status %d, want 502 or 504", a.Status)
	}
}

func TestOddExpiryOfATokenIsClamped(t *testing.T) {
	for _, expires := range []string{"-1", "0", "1e18", `"300"`, `"soon"`, "null", "{}", "99999999999999999999", "-"} {
		t.Run(expires, func(t *testing.T) {
			o := withLogin("Bearer")
			o.Auth.ExpiresIn = expires
			r := start(t, o, nil)
			for range 3 {
				r.whole("the manifest", r.Get(path("manifests/v1"), nil), image.Bytes)
			}
			r.count(quirky.Token, "", "", 1)
		})
	}
}

func TestTokenOf5KiBWorks(t *testing.T) {
	o := withLogin("Bearer")
	o.Auth.TokenSize = 5 << 10
	start(t, o, nil).pull()
}

// hostOf is the host and port of a URL.
func hostOf(raw string) string {
	_, rest, _ := strings.Cut(raw, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}
