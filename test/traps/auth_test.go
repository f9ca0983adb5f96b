package traps

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// hub is docker.io in front of the upstream, in relay mode if relay.
func hub(relay bool) func(*quirky.Server, *harness.Options) {
	return func(up *quirky.Server, h *harness.Options) {
		h.Registries[0].Name, h.Registries[0].Relay = "docker.io", relay
		if h.Logins != nil {
			h.Logins = map[string]string{"docker.io": user + ":" + password}
		}
	}
}

// Source: ciiiii/cloudflare-docker-proxy#79.
func TestTwoScopesAreNotAskedForOneRepository(t *testing.T) {
	nginx := quirky.NewImage(false, "nginx", 10)
	const want = "repository:library/nginx:pull"
	t.Run("relay", func(t *testing.T) {
		r := start(t, quirky.Options{Auth: quirky.Auth{Scheme: "Bearer"}}, hub(true))
		r.up.Add("library/nginx", "1", nginx)
		r.status("/v2/auth", r.Get("/v2/auth?service=sidemirror&scope=repository:library/nginx:pull&scope=repository:nginx:pull", nil), 200)
		asked := r.up.Requests(quirky.Token, "", "")
		if len(asked) != 1 || !slices.Equal(asked[0].Query["scope"], []string{want}) {
			t.Errorf("the token server was asked %+v, want one request for one scope", asked)
		}
	})
	t.Run("daemon", func(t *testing.T) {
		// The challenge of /v2/ names a sample repository, which is not to be copied.
		o := quirky.Options{Auth: quirky.Auth{Scheme: "Bearer", ProbeScope: "repository:user/image:pull"}}
		r := start(t, o, hub(false))
		r.up.Add("library/nginx", "1", nginx)
		r.whole("nginx", r.Get("/v2/library/nginx/manifests/1?ns=docker.io", nil), nginx.Bytes)
		asked := r.up.Requests(quirky.Token, "", "")
		if len(asked) != 1 || !slices.Equal(asked[0].Query["scope"], []string{want}) {
			t.Errorf("the token server was asked %+v, want one request for one scope", asked)
		}
	})
}

// Source: hubproxy.
func TestTokenIsNotUsedPastItsExpiry(t *testing.T) {
	const life = time.Second
	// The registry would take the token for an hour: only the client's clock counts.
	r := start(t, quirky.Options{Auth: quirky.Auth{Scheme: "Bearer", ExpiresIn: "1"}}, nil)
	r.Eventually("the token is fetched three times", func() bool {
		r.whole("the manifest", r.Get(path("manifests/v1"), nil), image.Bytes)
		return r.up.Count(quirky.Token, "", "") >= 3
	})
	first := map[string]time.Time{}
	for _, q := range r.up.Requests(quirky.Registry, "", "/manifests/") {
		token := q.Authorization()
		if token == "" {
			continue
		}
		if _, seen := first[token]; !seen {
			first[token] = q.At
		}
		if age := q.At.Sub(first[token]); age > life {
			t.Errorf("a token of %v was used for %v", life, age)
		}
	}
	if len(first) < 3 {
		t.Errorf("%d tokens were used, want 3 or more", len(first))
	}
}

// Source: hubproxy and dqzboy's docker-proxy.
func TestTokenOfOneIdentityIsNotUsedForAnother(t *testing.T) {
	o := withLogin("Bearer")
	o.Auth.Users["second"] = "another-canary-9c1e"
	r := start(t, o, func(_ *quirky.Server, h *harness.Options) {
		h.Logins = map[string]string{name + "/team": user + ":" + password, name + "/other": "second:another-canary-9c1e"}
	})
	r.up.Add("other/app", "v1", image)
	for range 2 {
		r.whole("team", r.Get(path("manifests/v1"), nil), image.Bytes)
		r.whole("other", r.Get("/v2/other/app/manifests/v1?ns="+name, nil), image.Bytes)
	}
	for repository, owner := range map[string]string{"team/app": user, "other/app": "second"} {
		for _, q := range r.up.Requests(quirky.Registry, "", repository) {
			if a := q.Authorization(); a != "" && !strings.HasPrefix(a, "Bearer token-of-"+owner+"-") {
				t.Errorf("%s was asked for with a token that is not the one of %s", repository, owner)
			}
		}
	}
	// The untrusted user, who is anonymous, comes after root, whose token is stored.
	nobody := harness.ClientAs(t, harness.Untrusted)
	r.up.Forget()
	r.status("nobody", r.DoWith(nobody, "GET", path("manifests/v1"), nil), 401)
	for _, q := range r.up.All() {
		if strings.Contains(q.Authorization(), "token-of-"+user) || strings.HasPrefix(q.Authorization(), "Basic") {
			t.Errorf("the daemon's credential was used for an untrusted user: %s %s", q.Part, q.Path)
		}
	}
}

// Source: CVE-2026-33540.
func TestRealmOnAForeignHostGetsNoPassword(t *testing.T) {
	for _, scheme := range []string{"GET", "POST"} {
		t.Run(scheme, func(t *testing.T) {
			o := withLogin("Bearer")
			o.Auth.ForeignHost = true
			r := start(t, o, func(_ *quirky.Server, h *harness.Options) {
				h.Registries[0].Realms = nil
				if scheme == "POST" {
					h.Logins, h.IdentityTokens = nil, map[string]string{name: "canary-identity-77aa"}
				}
			})
			a := r.Get(path("manifests/v1"), nil)
			r.status("a pull", a, 502)
			host := strings.TrimPrefix(r.up.TokenOrigin(), "http://")
			if !strings.Contains(string(a.Body), host) || !strings.Contains(string(a.Body), "realms") {
				t.Errorf("the error names neither %s nor the setting: %s", host, a.Body)
			}
			r.count(quirky.Token, "", "", 0)
		})
	}
}

// Source: amazon-ecr-credential-helper#679.
func TestOldTokenIsNotServedAfterAFailedRefresh(t *testing.T) {
	// Without a cache, which would answer while the token server is in trouble.
	r := start(t, withLogin("Bearer"), uncached)
	r.whole("the manifest", r.Get(path("manifests/v1"), nil), image.Bytes)
	old := r.up.Requests(quirky.Registry, "GET", "/manifests/")[1].Authorization()
	r.up.RevokeTokens()
	r.up.Set(func(o *quirky.Options) { o.Auth.TokenStatus = 500 })
	r.status("while the token server is broken", r.Get(path("manifests/v1"), nil), 502)
	r.up.Forget()
	r.status("and again", r.Get(path("manifests/v1"), nil), 502)
	for _, q := range r.up.All() {
		if q.Authorization() == old {
			t.Error("a token known to be refused was sent again")
		}
	}
	r.up.Set(func(o *quirky.Options) { o.Auth.TokenStatus = 0 })
	r.Eventually("a pull succeeds once the token server works again", func() bool {
		return r.Get(path("manifests/v1"), nil).Status == 200
	})
}

// Source: nexus-public#639.
func TestCorrectedCredentialNeedsNoRestart(t *testing.T) {
	r := start(t, withLogin("Bearer"), func(_ *quirky.Server, h *harness.Options) {
		h.Logins = map[string]string{name: user + ":wrong-canary-41d0"}
	})
	r.status("with a wrong password", r.Get(path("manifests/v1"), nil), 401)
	r.SetLogins(map[string]string{name: user + ":" + password})
	r.Eventually("a pull succeeds with the corrected password", func() bool {
		return r.Get(path("manifests/v1"), nil).Status == 200
	})
}

// Source: harbor#23750.
func TestFiftyColdPullsAreOneLoginAndThirtyRevokedOnesTwo(t *testing.T) {
	r := start(t, withLogin("Bearer"), nil)
	harness.Together(50, func(int) { r.whole("cold", r.Get(path("manifests/v1"), nil), image.Bytes) })
	r.count(quirky.Token, "", "", 1)
	r.up.RevokeTokens()
	r.up.Forget()
	harness.Together(30, func(int) { r.whole("revoked", r.Get(path("manifests/v1"), nil), image.Bytes) })
	if n := r.up.Count(quirky.Token, "", ""); n < 1 || n > 2 {
		t.Errorf("30 requests after a revocation made %d token fetches, want 1 or 2", n)
	}
}

// Source: rpardini/docker-registry-proxy#5.
func TestStoredBasicDoesNotOverwriteTheClientsBearer(t *testing.T) {
	r := start(t, withLogin("Bearer"), func(_ *quirky.Server, h *harness.Options) { h.Registries[0].Relay = true })
	a := r.Get("/v2/auth?ns="+name+"&service=sidemirror&scope=repository:team/app:pull", basic(user, password))
	r.status("the token", a, 200)
	token := jsonString(t, a.Body, "token")
	r.up.Forget()
	r.whole("the manifest", r.Get(path("manifests/v1"), http.Header{"Authorization": {"Bearer " + token}}), image.Bytes)
	for _, q := range r.up.All() {
		if q.Authorization() != "Bearer "+token {
			t.Errorf("%s %s went out with another Authorization than the client's", q.Method, q.Path)
		}
	}
	r.count(quirky.Token, "", "", 0)
}

func TestBadPasswordIsTriedOnceInAThousandPulls(t *testing.T) {
	for _, scheme := range []string{"Bearer", "Basic"} {
		t.Run(scheme, func(t *testing.T) {
			r := start(t, withLogin(scheme), func(_ *quirky.Server, h *harness.Options) {
				h.Logins = map[string]string{name: user + ":wrong-canary-41d0"}
			})
			client := harness.Client(t)
			harness.Together(10, func(int) {
				for range 100 {
					r.status("with a wrong password", r.DoWith(client, "GET", path("manifests/v1"), nil), 401)
				}
			})
			attempts := 0
			for _, q := range r.up.All() {
				if strings.HasPrefix(q.Authorization(), "Basic ") {
					attempts++
				}
			}
			if attempts != 1 {
				t.Errorf("the bad password was sent %d times, want once", attempts)
			}
		})
	}
}

func TestEveryShapeOfAChallengeIsUnderstood(t *testing.T) {
	for shape, challenge := range quirky.Challenges {
		t.Run(shape, func(t *testing.T) {
			o := withLogin("Bearer")
			o.Auth.Challenge = challenge
			r := start(t, o, nil)
			r.whole("the manifest", r.Get(path("manifests/v1"), nil), image.Bytes)
			r.count(quirky.Token, "", "", 1)
		})
	}
}

func TestEveryPublicRegistrysWaysLeadToAWholePull(t *testing.T) {
	for _, like := range []string{"docker.io", "ghcr.io", "quay.io", "ecr", "public.ecr.aws", "artifactregistry"} {
		t.Run(like, func(t *testing.T) {
			o := quirky.Like(like)
			o.Auth.Users, o.Auth.Private = map[string]string{user: password}, []string{""}
			r := start(t, o, nil)
			r.pull()
			r.pull()
			for _, q := range r.up.Requests(quirky.BlobStore, "", "") {
				if q.Authorization() != "" {
					t.Error("Authorization was sent to the blob store")
				}
			}
		})
	}
}

func TestTokenServerThatKnowsOnlyPostIsAskedByPost(t *testing.T) {
	o := withLogin("Bearer")
	o.Auth.PostOnly, o.Auth.AccessToken = true, true
	r := start(t, o, nil)
	r.pull()
	for _, q := range r.up.Requests(quirky.Token, "POST", "") {
		if !strings.Contains(q.Body, "grant_type=password") || strings.Contains(q.Path, password) || q.Query.Get("password") != "" {
			t.Errorf("asked by %s?%v with %d bytes of form", q.Path, q.Query, len(q.Body))
		}
	}
	if r.up.Count(quirky.Token, "POST", "") == 0 {
		t.Error("no request was a POST")
	}
}

func TestIdentityTokenIsExchangedByPost(t *testing.T) {
	const refresh = "canary-identity-77aa"
	o := withLogin("Bearer")
	o.Auth.IdentityTokens = map[string]string{refresh: user}
	r := start(t, o, func(_ *quirky.Server, h *harness.Options) {
		h.Logins, h.IdentityTokens = nil, map[string]string{name: refresh}
	})
	r.pull()
	asked := r.up.Requests(quirky.Token, "", "")
	if len(asked) != 1 || asked[0].Method != "POST" || !strings.Contains(asked[0].Body, "grant_type=refresh_token") {
		t.Errorf("the token server was asked %+v", asked)
	}
}

func TestStaleTokenAnswered400Or403IsRefreshedPastHalfItsLife(t *testing.T) {
	for _, stale := range []int{400, 403} {
		o := withLogin("Bearer")
		o.Auth.StaleStatus, o.Auth.ExpiresIn, o.Auth.Life = stale, "4", 2500*time.Millisecond
		r := start(t, o, nil)
		r.Eventually("the token is fetched again", func() bool {
			r.whole("the manifest", r.Get(path("manifests/v1"), nil), image.Bytes)
			return r.up.Count(quirky.Token, "", "") > 1
		})
	}
}

func basic(user, password string) http.Header {
	return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}}
}
