package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/observe"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// request is one admitted request. It never changes: what is learned while it is served goes
// to the access line.
type request struct {
	oci.Request
	http     *http.Request
	registry *registry
	caller   access.Caller
	refusals *refusals
	quota    *access.Quota     // nil: no login is lent to the caller
	memory   *access.Allowance // for bodies that are held until the response is out
	mirror   bool              // the engine falls back to the registry if sidemirror fails
	anew     bool              // no token from before is used
	span     observe.Span      // nil if the request is not followed
}

// repository returns what r asks in, for the cache and the grants.
func (r *request) repository() cache.Repository {
	return cache.Repository{Registry: r.Registry, Name: r.Repository}
}

// localRepository returns the repository's name as the client knows it.
func (r *request) localRepository() string {
	if r.Prefixed && r.Form == oci.ByPrefix {
		return r.Registry + "/" + r.Repository
	}
	return r.Repository
}

// generation returns the generation of the daemon's login that one of the upstreams is asked
// with, "" for none.
func (r *request) generation() string {
	for _, u := range r.registry.upstreams {
		if g := r.caller.At(u.Name).Credential.Generation; g != "" {
			return g
		}
	}
	return ""
}

// as returns the identity in which an upstream is asked for r.
func (r *request) as(u *upstream.Upstream) upstream.Identity {
	id := r.caller.At(u.Name())
	if id.Relay {
		return upstream.Identity{Authorization: id.Authorization, Certificate: id.Certificate}
	}
	return upstream.Identity{
		Access:      &auth.Access{Repository: r.Repository, Credential: id.Credential, Anew: r.anew},
		Certificate: id.Certificate,
	}
}

// query returns the upstream request for what r asks. It is made from what is known of the
// protocol: a caller's other headers and query keys reach no upstream.
func (r *request) query(method string) upstream.Request {
	q := upstream.Request{
		Method:  method,
		Path:    r.Path(),
		Query:   r.upstreamQuery(),
		Header:  http.Header{},
		Patient: !r.mirror, Untrusted: !r.caller.Trusted,
	}
	if q.Patient {
		q.HeaderTimeout = upstream.Unlimited
	}
	switch r.Kind {
	case oci.Manifest:
		q.Header.Set("Accept", strings.Join(r.upstreamAccept(), ", "))
	case oci.Referrers:
		q.Header.Set("Accept", v1.MediaTypeImageIndex)
	case oci.Tags:
		q.Header.Set("Accept", "application/json")
	}
	return q
}

// queryKeys are the keys that ask for a page or a part of a list, the last of them as registries
// write them into their own links.
var queryKeys = map[oci.Kind][]string{
	oci.Tags:      {"n", "last", "next_page", "next_token", "page", "page_size"},
	oci.Referrers: {"artifactType", "n", "last", "next_page", "next_token"},
}

// maxQueryValue bounds one value of a query, in bytes.
const maxQueryValue = 2048

// upstreamQuery returns the part of r's query that is passed on.
func (r *request) upstreamQuery() url.Values {
	q := url.Values{}
	for _, key := range queryKeys[r.Kind] {
		if v, ok := r.Query[key]; ok && len(v[0]) <= maxQueryValue {
			q.Set(key, v[0])
		}
	}
	return q
}

// ask sends q to the upstreams of pool and records which of them responded. A response that
// is neither 2xx nor 416 is returned as the error for the client.
func (r *request) ask(ctx context.Context, l *accessLine, pool upstream.Pool, q upstream.Request) (*http.Response, *upstream.Upstream, error) {
	resp, u, err := r.send(ctx, pool, q)
	l.answeredBy(u)
	return resp, u, err
}

// send is ask for what outlives the request.
func (r *request) send(ctx context.Context, pool upstream.Pool, q upstream.Request) (*http.Response, *upstream.Upstream, error) {
	if e := r.refusals.recent(r); e != nil {
		return nil, nil, e
	}
	resp, u, err := pool.Do(observe.WithSpan(ctx, r.span), q, r.as)
	if err != nil {
		return nil, u, err
	}
	if ok := resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable; !ok {
		e := r.refusal(resp, u)
		e.Upstream = resp.StatusCode
		e.ReadRefusal(resp)
		return nil, u, e
	}
	return resp, u, nil
}

// refusal returns what the status of an upstream's refusal means to the client.
func (r *request) refusal(resp *http.Response, u *upstream.Upstream) *oci.Error {
	message := fmt.Sprintf("%s answered %d", u.Host(), resp.StatusCode)
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		if r.caller.At(u.Name()).Relay {
			u.Learn(resp, r.as(u))
		}
		return &oci.Error{Code: oci.Unauthorized, Message: message}
	case http.StatusForbidden:
		return &oci.Error{Code: oci.Denied, Message: message}
	case http.StatusNotFound:
		return &oci.Error{Code: r.unknown(), Status: http.StatusNotFound, Message: message}
	}
	e := &oci.Error{Code: oci.Unavailable, Message: message}
	if !mirrorForm(r.Request) && resp.StatusCode >= 400 && resp.StatusCode != http.StatusRequestTimeout {
		e.Status = resp.StatusCode
	}
	return e
}

// unknown returns the code for what an upstream does not have. For referrers it says that the
// upstream lacks the API: a client that reads NAME_UNKNOWN takes the repository for missing,
// and does not look for the tag that stands in for the API.
func (r *request) unknown() oci.Code {
	switch r.Kind {
	case oci.Blob:
		return oci.BlobUnknown
	case oci.Manifest:
		return oci.ManifestUnknown
	case oci.Referrers:
		return oci.Unsupported
	}
	return oci.NameUnknown
}

// upstreamStatus returns the status of an upstream that err comes from, 0 if from none.
func upstreamStatus(err error) int {
	if err == nil {
		return 0
	}
	return oci.AsError(err).Upstream
}

// headFailed reports whether err, the failure of a HEAD, says nothing about a GET: the upstream
// does not serve HEAD, or the client sent GET, and it was sidemirror that chose to send HEAD.
func (r *request) headFailed(err error) bool {
	switch status := upstreamStatus(err); status {
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	case 0, http.StatusTooManyRequests:
		return false
	default:
		return r.http.Method == http.MethodGet
	}
}
