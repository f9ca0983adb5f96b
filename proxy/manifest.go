package proxy

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// acceptAll is what a client that says nothing of what it takes is taken to accept:
// a registry asked without Accept may answer with schema 1.
var acceptAll = []string{v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, dockerIndex, dockerManifest}

// staleWarning marks what may not be the latest (RFC 7234, 5.5.1).
const staleWarning = `110 - "Response is Stale"`

// tagStep is how exactly it is known when a tag was last asked for. Where a tag is
// never believed unasked, only max_stale is counted from then.
const tagStep = time.Minute

// serveManifest answers for a manifest. HEAD is always complete: what the upstream
// leaves out is computed from the content.
func (p *Proxy) serveManifest(a *answer, c *call) error {
	m, err := p.findManifest(c)
	if err != nil {
		return err
	}
	h := a.Header()
	h.Set("Docker-Content-Digest", m.digest.String())
	h.Set("ETag", strconv.Quote(m.digest.String()))
	h.Set("Vary", "Accept")
	if m.stale {
		h.Set("Warning", staleWarning)
	}
	if c.Digest == "" {
		c.Digest = m.digest // for the access line
	}
	if c.http.Header.Get("If-None-Match") == h.Get("ETag") {
		a.WriteHeader(http.StatusNotModified) // engines do not ask so, and would not take it
		return nil
	}
	h.Set("Content-Type", m.mediaType)
	h.Set("Content-Length", strconv.FormatInt(m.size, 10))
	a.WriteHeader(http.StatusOK)
	if c.http.Method == http.MethodHead {
		return nil
	}
	_, err = a.Write(m.body)
	return err
}

func (p *Proxy) findManifest(c *call) (*manifest, error) {
	switch {
	case p.cache == nil:
		return c.fetchManifest(c.http.Context(), c.http.Method)
	case c.Digest != "":
		return p.manifestByDigest(c)
	}
	return p.manifestByTag(c)
}

// manifestByDigest answers from the cache under a live grant, without asking anybody.
func (p *Proxy) manifestByDigest(c *call) (*manifest, error) {
	kept := p.kept(c, c.Digest)
	if kept != nil && p.granted(c) {
		c.cached = "hit"
		return kept, nil
	}
	ctx, cancel, method := p.freshly(c, kept)
	defer cancel()
	m, err := c.fetchManifest(ctx, method)
	p.note(c, err)
	switch {
	case kept != nil && (err == nil || oci.Away(err) && p.stretched(c)):
		c.cached = "hit"
		return kept, nil
	case err != nil:
		return nil, err
	}
	p.keep(c, m)
	return m, nil
}

// manifestByTag asks the upstream what the tag means, and answers from the cache if
// that is kept; also if the upstream is away and what is kept is not too old.
func (p *Proxy) manifestByTag(c *call) (*manifest, error) {
	meaning, kept := p.meaning(c)
	if kept != nil && time.Since(meaning.Seen) < p.freshness.TagTTL && p.granted(c) {
		c.cached = "hit"
		return kept, nil
	}
	ctx, cancel, method := p.freshly(c, kept)
	defer cancel()
	m, err := c.fetchManifest(ctx, method)
	p.note(c, err)
	if err != nil {
		if kept != nil && oci.Away(err) && time.Since(meaning.Seen) < p.freshness.MaxStale && p.stretched(c) {
			c.cached = "stale"
			kept.stale = true
			return kept, nil
		}
		return nil, err
	}
	p.learn(c, m, meaning)
	if m.body == nil && c.http.Method == http.MethodGet {
		if kept = p.kept(c, m.digest); kept != nil {
			c.cached = "hit"
			return kept, nil
		}
		if m, err = c.fetchManifest(c.http.Context(), http.MethodGet); err != nil {
			return nil, err
		}
	}
	p.keep(c, m)
	return m, nil
}

// learn notes what c's tag means. While that is what it last meant, a record that is
// young enough stays: to write it at each pull is most of what a pull by tag costs.
func (p *Proxy) learn(c *call, m *manifest, last cache.Meaning) {
	now := cache.Meaning{Digest: m.digest, MediaType: m.mediaType, Size: m.size, Upstream: m.upstream, Seen: time.Now()}
	age := now.Seen.Sub(last.Seen)
	last.Seen = now.Seen
	if now == last && p.freshness.TagTTL == 0 && age >= 0 && age < min(tagStep, p.freshness.MaxStale/100) {
		return
	}
	_ = p.cache.SetTag(c.repository(), c.Tag, now) // lost, it is asked for again
}

// freshly says how to ask the upstream: where something is kept to answer with, for
// the description alone, which Docker Hub does not count, and not for long.
func (p *Proxy) freshly(c *call, kept *manifest) (context.Context, context.CancelFunc, string) {
	ctx := c.http.Context()
	if kept == nil {
		return ctx, func() {}, c.http.Method
	}
	c.fallback = true
	ctx, cancel := context.WithTimeout(ctx, p.freshness.Timeout)
	return ctx, cancel, http.MethodHead
}

// meaning gives what c's tag last meant as something that the client takes, and that
// manifest if it is kept. Of an index and a manifest it is the index, as registries
// have it that are asked for either.
func (p *Proxy) meaning(c *call) (meaning cache.Meaning, kept *manifest) {
	for _, m := range p.cache.Tag(c.repository(), c.Tag) {
		if !c.accepts(m.MediaType) || kept != nil && !isIndex(m.MediaType) {
			continue
		}
		if k := p.kept(c, m.Digest); k != nil {
			meaning, kept = m, k
		}
		if kept != nil && isIndex(m.MediaType) {
			break
		}
	}
	return meaning, kept
}

func isIndex(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == dockerIndex
}

func (c *call) accepts(mediaType string) bool {
	accept := c.accept()
	return slices.Contains(accept, mediaType) || slices.Contains(accept, "*/*")
}

// accept gives the media types that the client takes, without their parameters.
func (c *call) accept() []string {
	var all []string
	for _, v := range c.http.Header.Values("Accept") {
		for t := range strings.SplitSeq(v, ",") {
			t, _, _ = strings.Cut(t, ";")
			all = append(all, strings.TrimSpace(t))
		}
	}
	if len(all) == 0 || len(all) == 1 && all[0] == "*/*" {
		return acceptAll
	}
	return all
}

// kept gives a manifest that the cache has for c's repository, nil if it has not.
func (p *Proxy) kept(c *call, dgst digest.Digest) *manifest {
	m, err := p.cache.Manifest(c.repository(), dgst)
	if err != nil || !c.registry.has(m.Upstream) {
		return nil
	}
	return &manifest{body: m.Body, size: int64(len(m.Body)), digest: m.Digest, mediaType: m.MediaType}
}

// keep puts a manifest into the cache. One that cannot be kept is served all the same.
func (p *Proxy) keep(c *call, m *manifest) {
	c.cached = "miss"
	if m.body == nil {
		return
	}
	err := p.cache.PutManifest(c.repository(), &cache.Manifest{Digest: m.digest, MediaType: m.mediaType, Body: m.body, Upstream: m.upstream})
	if err != nil {
		p.log.WithError(err).WithField("digest", m.digest).Warn("manifest not kept")
	}
}

// fetchManifest fetches what c asks for. An upstream whose bytes are not what they
// should be is passed over for the next.
func (c *call) fetchManifest(ctx context.Context, method string) (*manifest, error) {
	r := c.upstreamRequest(method)
	if accept := r.Header.Get("Accept"); accept == "" || accept == "*/*" {
		r.Header.Set("Accept", strings.Join(acceptAll, ", "))
	}
	pool := c.registry.pool
	for {
		resp, u, err := c.ask(ctx, pool, r)
		if method == http.MethodHead && headUnserved(err) {
			return c.fetchManifest(ctx, http.MethodGet)
		}
		if err != nil {
			return nil, err
		}
		m, err := readManifest(resp, method, c.Digest)
		if err == nil && m == nil {
			return c.fetchManifest(ctx, http.MethodGet)
		}
		if err == nil {
			m.upstream = u.Host()
			return m, nil
		}
		if pool = pool.Without(u); len(pool) == 0 {
			return nil, &oci.Error{Code: oci.ManifestInvalid, Status: http.StatusBadGateway, Message: u.Host() + " sent " + err.Error()}
		}
	}
}

// headUnserved reports whether an upstream does not know HEAD.
func headUnserved(err error) bool {
	status := upstreamStatus(err)
	return status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented
}
