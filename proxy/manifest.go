package proxy

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// staleWarning marks what may not be the latest (RFC 7234, 5.5.1).
const staleWarning = `110 - "Response is Stale"`

// tagStep is how exactly it is known when a tag was last asked for. Where a tag is always
// asked for, only max_stale is counted from then.
const tagStep = time.Minute

// serveManifest responds with a manifest. HEAD is always complete: what the upstream leaves
// out is computed from the content.
func (p *Proxy) serveManifest(w *response, r *request) error {
	m, err := p.findManifest(w, r)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Docker-Content-Digest", m.digest.String())
	h.Set("ETag", strconv.Quote(m.digest.String()))
	h.Set("Vary", "Accept")
	addWarnings(h, m.warning)
	if m.stale {
		h.Add("Warning", staleWarning)
	}
	if r.Digest == "" {
		w.line.digest = m.digest
	}
	if r.http.Header.Get("If-None-Match") == h.Get("ETag") {
		w.WriteHeader(http.StatusNotModified) // engines do not ask so, and would not take it
		return nil
	}
	h.Set("Content-Type", m.mediaType)
	h.Set("Content-Length", strconv.FormatInt(m.size, 10))
	w.WriteHeader(http.StatusOK)
	if r.http.Method == http.MethodHead {
		return nil
	}
	_, err = w.Write(m.body)
	return err
}

func (p *Proxy) findManifest(w *response, r *request) (*manifest, error) {
	switch {
	case p.cache == nil:
		m, _, err := r.fetchManifest(r.http.Context(), &w.line, manifestQuery{method: r.http.Method})
		return m, err
	case r.Digest != "":
		return p.manifestByDigest(w, r)
	}
	return p.manifestByTag(w, r)
}

// manifestByDigest returns a stored manifest under a live grant, without asking upstream.
// Otherwise the upstream decides.
func (p *Proxy) manifestByDigest(w *response, r *request) (*manifest, error) {
	stored, _ := p.cache.Manifest(r.repository(), r.Digest)
	if stored != nil {
		if h := p.may(r, stored.Holdings); h != nil {
			w.line.cache = "hit"
			return asManifest(stored, h), nil
		}
	}
	ctx, cancel, q := p.freshness.query(r, stored != nil)
	defer cancel()
	m, u, err := r.fetchManifest(ctx, &w.line, q)
	if err != nil {
		p.noteRefusal(r, u, err)
		if stored != nil {
			if h := p.mayWhileAway(r, stored.Holdings, err); h != nil {
				w.line.cache = "hit"
				return asManifest(stored, h), nil
			}
		}
		return nil, err
	}
	p.allow(r, u)
	if stored == nil {
		p.store(w, r, m)
		return m, nil
	}
	w.line.cache = "hit"
	return p.confirmed(r, stored, m), nil
}

// confirmed returns a stored manifest that an upstream has just said the repository holds,
// and records that it has.
func (p *Proxy) confirmed(r *request, stored *cache.Manifest, m *manifest) *manifest {
	h := cache.Holding{MediaType: m.mediaType, Learned: r.learned(m.from)}
	same := func(old cache.Holding) bool {
		return old.MediaType == h.MediaType && old.Upstream == h.Upstream && old.By == h.By
	}
	if !slices.ContainsFunc(stored.Holdings, same) {
		_ = p.cache.HoldManifest(r.repository(), stored.Digest, h) // a lost record is asked for again
	}
	found := asManifest(stored, &h)
	found.warning = m.warning
	return found
}

// manifestByTag asks the upstream what the tag means, and returns that manifest from the cache
// if it is stored. If the upstream is away it returns what the tag meant last, unless that is
// too old.
func (p *Proxy) manifestByTag(w *response, r *request) (*manifest, error) {
	known := p.meanings(r)
	for _, k := range known {
		if age := time.Since(k.Seen); age >= 0 && age < p.freshness.TagTTL && p.grants.May(r.caller, r.repository(), k.Learned) {
			w.line.cache = "hit"
			return k.manifest(), nil
		}
	}
	ctx, cancel, q := p.freshness.query(r, len(known) > 0)
	defer cancel()
	m, u, err := r.fetchManifest(ctx, &w.line, q)
	if err != nil {
		p.noteRefusal(r, u, err)
		if k := p.staleMeaning(r, known, err); k != nil {
			w.line.cache = "stale"
			stale := k.manifest()
			stale.stale = true
			return stale, nil
		}
		return nil, err
	}
	p.allow(r, u)
	p.learn(r, m, known)
	if m.body == nil && r.http.Method == http.MethodGet {
		if stored, _ := p.cache.Manifest(r.repository(), m.digest); stored != nil {
			w.line.cache = "hit"
			return p.confirmed(r, stored, m), nil
		}
		if m, _, err = r.fetchManifest(r.http.Context(), &w.line, manifestQuery{method: http.MethodGet}); err != nil {
			return nil, err
		}
	}
	p.store(w, r, m)
	return m, nil
}

// meaning is what a tag means, and that manifest.
type meaning struct {
	cache.Meaning
	stored *cache.Manifest
}

func (m meaning) manifest() *manifest {
	found := asManifest(m.stored, &cache.Holding{MediaType: m.MediaType})
	found.warning = m.Warning
	return found
}

// meanings returns what r's tag meant last as something that the client accepts, as far as
// that manifest is stored. Of an index and a manifest the index comes first, as registries
// have it that are asked for either.
func (p *Proxy) meanings(r *request) []meaning {
	var indexes, others []meaning
	for _, m := range p.cache.Tag(r.repository(), r.Tag) {
		if !r.accepts(m.MediaType) {
			continue
		}
		stored, _ := p.cache.Manifest(r.repository(), m.Digest)
		switch {
		case stored == nil:
		case oci.IsIndex(m.MediaType):
			indexes = append(indexes, meaning{m, stored})
		default:
			others = append(others, meaning{m, stored})
		}
	}
	return append(indexes, others...)
}

// staleMeaning returns what the tag meant last, if the upstream that said so is away and the
// caller may still have it; nil otherwise.
func (p *Proxy) staleMeaning(r *request, known []meaning, err error) *meaning {
	for i, k := range known {
		if age := time.Since(k.Seen); age >= 0 && age < p.freshness.MaxStale && p.awayAllows(r, k.Learned, err) {
			return &known[i]
		}
	}
	return nil
}

// learn records what r's tag means. While that is what it last meant, a record that is young
// enough stays: writing it at each pull is most of what a pull by tag costs.
func (p *Proxy) learn(r *request, m *manifest, known []meaning) {
	now := cache.Meaning{
		Digest: m.digest, MediaType: m.mediaType, Size: m.size, Warning: m.warning, Seen: time.Now(), Learned: r.learned(m.from),
	}
	for _, k := range known {
		last, age := k.Meaning, now.Seen.Sub(k.Seen)
		last.Seen, last.Since = now.Seen, now.Since
		if now == last && p.freshness.TagTTL == 0 && age >= 0 && age < min(tagStep, p.freshness.MaxStale/100) {
			return
		}
	}
	_ = p.cache.SetTag(r.repository(), r.Tag, now) // a lost record is asked for again
}

// manifestQuery says how to ask an upstream for a manifest.
type manifestQuery struct {
	method    string
	impatient bool // there is something to fall back to
}

// query says how to ask the upstream: if something is stored to fall back to, for the
// description alone, which Docker Hub does not count, and not for long.
func (f Freshness) query(r *request, stored bool) (context.Context, context.CancelFunc, manifestQuery) {
	ctx := r.http.Context()
	if !stored {
		return ctx, func() {}, manifestQuery{method: r.http.Method}
	}
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	return ctx, cancel, manifestQuery{method: http.MethodHead, impatient: true}
}

// asManifest returns a stored manifest as the one that was asked for.
func asManifest(m *cache.Manifest, h *cache.Holding) *manifest {
	return &manifest{body: m.Body, size: int64(len(m.Body)), digest: m.Digest, mediaType: h.MediaType}
}

// store puts a manifest into the cache. One that cannot be stored is served all the same.
func (p *Proxy) store(w *response, r *request, m *manifest) {
	w.line.cache = "miss"
	if m.body == nil {
		return
	}
	h := cache.Holding{MediaType: m.mediaType, Learned: r.learned(m.from)}
	if err := p.cache.PutManifest(r.repository(), m.digest, m.body, h); err != nil {
		p.log.WithError(err).WithField("digest", m.digest).Warn("cannot store a manifest")
	}
}
