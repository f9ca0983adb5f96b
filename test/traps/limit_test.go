package traps

import (
	"strconv"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/quirky"
)

// Source: distribution#3270 and harbor#19899.
func TestTooManyRequestsBecomesNeither404Nor500(t *testing.T) {
	for what, limit := range map[string]quirky.Limit{
		"json":           {Status: 429, RetryAfter: "77", Body: `{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}`},
		"text":           {Status: 429, RetryAfter: "77", Body: "slow down"},
		"no body":        {Status: 429, RetryAfter: "77"},
		"no Retry-After": {Status: 429, Body: "{}"},
	} {
		t.Run(what, func(t *testing.T) {
			for _, p := range []string{"manifests/v1", "manifests/" + image.Digest.String(), "blobs/" + layer.Digest.String()} {
				r := start(t, quirky.Options{Limit: limit}, nil)
				// A mirror's 429 would be hammered by containerd, which knows no Retry-After.
				mirror := r.Get(path(p), nil)
				r.status("mirror form, "+p, mirror, 502)
				prefix := r.Get("/v2/"+name+"/"+repo+"/"+p, nil)
				r.status("prefix form, "+p, prefix, 429)
				for _, body := range [][]byte{mirror.Body, prefix.Body} {
					if !strings.Contains(string(body), "TOOMANYREQUESTS") {
						t.Errorf("%s: the error does not say TOOMANYREQUESTS: %s", p, body)
					}
				}
				if mirror.Header.Get("Retry-After") != "" {
					t.Errorf("%s: Retry-After in mirror form", p)
				}
				after, err := strconv.Atoi(prefix.Header.Get("Retry-After"))
				if limit.RetryAfter != "" && (err != nil || after < 60 || after > 77) {
					t.Errorf("%s: Retry-After %q, want what is left of 77", p, prefix.Header.Get("Retry-After"))
				}
			}
		})
	}
}

func TestUpstreamThatSaid429IsNotAskedAgain(t *testing.T) {
	r := start(t, quirky.Options{Limit: quirky.Limit{Status: 429, RetryAfter: "120"}}, nil)
	for range 5 {
		r.status("HEAD", r.Do("HEAD", path("manifests/v1"), nil), 502)
		r.status("a blob", r.Get(blobPath(layer), nil), 502)
	}
	if n := len(r.up.All()); n != 1 {
		t.Errorf("%d requests upstream after its 429, want only that one", n)
	}
}

// Source: distribution#3270 and harbor#19899.
func TestLimitOfOneCallerHoldsBackNoOther(t *testing.T) {
	o := withLogin("Bearer")
	o.Auth.Private = nil
	r := start(t, o, nil)
	r.whole("before", r.Get(path("manifests/v1"), nil), image.Bytes)
	r.up.Set(func(o *quirky.Options) { o.Limit = quirky.Limit{Status: 429, RetryAfter: "120", Times: 1} })
	r.status("the untrusted user is limited", r.DoWith(untrustedClient(t), "GET", path("manifests/v1"), nil), 502)
	r.whole("the daemon's login is not", r.Get(path("manifests/v1"), nil), image.Bytes)
}
