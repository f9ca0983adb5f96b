package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// The referrers of a digest that an upstream without the endpoint lists under a tag, if any
// (OCI Distribution 1.1, "Unavailable Referrers API").
func TestReferrersOfAnUpstreamWithoutTheEndpoint(t *testing.T) {
	t.Parallel()
	subject := digest.FromString("subject")
	const list = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}]}`
	const page = "<!DOCTYPE html><html><body>sign in</body></html>"
	for name, c := range map[string]struct {
		endpoint, tag int
		code          string // of the upstream's own error at the endpoint
		body          string // under the tag
		want          int
		wantBody      string
	}{
		"tag":                {endpoint: 404, tag: 200, body: list, want: 200, wantBody: list},
		"no tag":             {endpoint: 404, tag: 404, want: 200, wantBody: noReferrers},
		"page for the tag":   {endpoint: 404, tag: 200, body: page, want: 502},
		"image for the tag":  {endpoint: 404, tag: 200, body: `{"schemaVersion":2,"config":{},"layers":[]}`, want: 502},
		"repository unknown": {endpoint: 404, code: "NAME_UNKNOWN", tag: 404, want: 404},
		"endpoint unknown":   {endpoint: 404, code: "UNSUPPORTED", tag: 200, body: list, want: 200, wantBody: list},
		"tag refused":        {endpoint: 404, tag: 403, want: 403},
		"tag fails":          {endpoint: 404, tag: 500, want: 502},
		"endpoint refused":   {endpoint: 401, tag: 200, body: list, want: 401},
		"endpoint fails":     {endpoint: 500, tag: 200, body: list, want: 502},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, nil, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasPrefix(r.URL.Path, "/v2/a/b/referrers/"):
					w.WriteHeader(c.endpoint)
					if c.code != "" {
						fmt.Fprintf(w, `{"errors":[{"code":%q}]}`, c.code)
					}
				case r.URL.Path == "/v2/a/b/manifests/sha256-"+subject.Encoded():
					w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
					w.WriteHeader(c.tag)
					fmt.Fprint(w, c.body)
				default:
					w.WriteHeader(http.StatusNotFound)
				}
			})
			got := g.do(t, http.MethodGet, "/v2/a/b/referrers/"+subject.String()+"?ns=docker.io")
			if got.StatusCode != c.want || c.wantBody != "" && string(got.body) != c.wantBody {
				t.Errorf("status %d, want %d\n%s", got.StatusCode, c.want, got.body)
			}
			if kind := got.Header.Get("Content-Type"); c.want == 200 && kind != v1.MediaTypeImageIndex {
				t.Errorf("Content-Type %q", kind)
			}
		})
	}
}
