package proxy

import (
	"net/http"
	"slices"
	"time"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// noReferrers is the list of a digest that has none.
const noReferrers = `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `","manifests":[]}`

// fetchReferrers asks the upstream for a page of referrers. A registry without that endpoint
// responds with 404. Its clients maintain a tag instead, which is read then; if there is no such
// tag either, the digest has no referrers (OCI Distribution 1.1, "Unavailable Referrers API").
//
// A 404 to containerd would send it to the registry itself, which may be away or accept only the
// login that sidemirror has.
func (r *request) fetchReferrers(l *accessLine) (*cache.Answer, *upstream.Upstream, error) {
	page, u, err := r.fetchList(l)
	if upstreamStatus(err) != http.StatusNotFound || saysNoRepository(err) {
		return page, u, err
	}
	tagged := *r
	tagged.Kind, tagged.Tag, tagged.Digest, tagged.Query = oci.Manifest, referrersTag(r), "", nil
	q := tagged.query(http.MethodGet)
	q.Header["Accept"] = []string{v1.MediaTypeImageIndex}
	resp, u, err := tagged.ask(r.http.Context(), l, r.registry.pool, q)
	if upstreamStatus(err) == http.StatusNotFound {
		return listOf([]byte(noReferrers)), u, nil
	}
	if err != nil {
		return nil, u, err
	}
	m, err := readManifest(resp, http.MethodGet, "")
	if err != nil || !isList(oci.Referrers, m.body) {
		return nil, u, &oci.Error{Code: oci.Unavailable, Message: u.Host() + " sent something that is not a list of referrers for " + tagged.Tag}
	}
	return listOf(m.body), u, nil
}

// saysNoRepository reports whether an upstream's own error says that the repository does not
// exist, and not that the endpoint does not.
func saysNoRepository(err error) bool {
	return slices.ContainsFunc(oci.AsError(err).Passed, func(i oci.Item) bool { return i.Code == string(oci.NameUnknown) })
}

// referrersTag returns the tag under which clients list the referrers of r's digest.
func referrersTag(r *request) string {
	return r.Digest.Algorithm().String() + "-" + r.Digest.Encoded()
}

func listOf(body []byte) *cache.Answer {
	return &cache.Answer{Body: body, Header: map[string]string{"Content-Type": v1.MediaTypeImageIndex}, Seen: time.Now()}
}

// unknownReferrers returns an empty list for a stored manifest whose referrers were never asked
// for, if its upstream is away; nil otherwise. An image that is stored can be pulled then by an
// engine that asks for them, as Docker does from 29.1 on.
func (p *Proxy) unknownReferrers(r *request, err error) *cache.Answer {
	if r.Kind != oci.Referrers {
		return nil
	}
	subject, readErr := p.cache.Manifest(r.repository(), r.Digest, !r.caller.Trusted)
	if readErr != nil || subject == nil || p.mayWhileAway(r, subject.Holdings, err) == nil {
		return nil
	}
	return listOf([]byte(noReferrers))
}
