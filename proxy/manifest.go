package proxy

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

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
	if err := p.checkWholeImage(w, r, m); err != nil {
		return err
	}
	p.served(r, m)
	if err := r.memory.Hold(int64(len(m.body))); err != nil {
		return busy(err)
	}
	h := w.Header()
	tag := etag(m.digest)
	w.setHeader("Docker-Content-Digest", m.digest.String())
	w.setHeader("Etag", tag)
	w.setHeader("Vary", "Accept")
	addWarnings(h, m.warning)
	if m.stale {
		h.Add("Warning", staleWarning)
	}
	p.addOwnWarnings(h, r, m)
	if r.Digest == "" {
		w.line.digest = m.digest
	}
	if r.http.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified) // engines do not ask so, and would not take it
		return nil
	}
	w.setHeader("Content-Type", m.mediaType)
	w.setHeader("Content-Length", strconv.FormatInt(m.size, 10))
	w.WriteHeader(http.StatusOK)
	if r.http.Method == http.MethodHead {
		return nil
	}
	_, err = w.Write(m.body)
	return err
}

// etag returns the entity tag of content (RFC 9110, 8.8.3).
func etag(dgst digest.Digest) string { return `"` + string(dgst) + `"` }

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
	stored, _ := p.cache.Manifest(r.repository(), r.Digest, !r.caller.Trusted)
	if stored != nil {
		if h := p.may(r, stored.Holdings); h != nil {
			w.line.cache = "hit"
			return asManifest(stored, h), nil
		}
	}
	if stored == nil {
		a := p.askForManifest(r.http.Context(), r, &w.line, manifestQuery{method: r.http.Method})
		if a.err == nil {
			p.store(w, r, a.m)
		}
		return a.m, a.err
	}
	may := func(err error) bool { return p.mayWhileAway(r, stored.Holdings, err) != nil }
	a := p.inquiries.begin(r, func(ctx context.Context, i *inquiry) answer {
		return p.askForManifest(ctx, r, &i.line, confirmation)
	}).get(r, &w.line, may)
	if a.err != nil {
		if h := p.mayWhileAway(r, stored.Holdings, a.err); h != nil {
			w.line.cache = "hit"
			return asManifest(stored, h), nil
		}
		return nil, a.err
	}
	w.line.cache = "hit"
	return p.confirmed(r, stored, a.m), nil
}

// askForManifest asks the upstream for r's manifest and records what the answer says about
// r's caller.
func (p *Proxy) askForManifest(ctx context.Context, r *request, l *accessLine, q manifestQuery) answer {
	m, u, err := r.fetchManifest(ctx, l, q)
	if err != nil {
		p.noteRefusal(r, u, err)
	} else {
		p.allow(r, u, m.at)
	}
	return answer{m, u, err}
}

// confirmed returns a stored manifest that an upstream has just said the repository holds,
// and records that it has.
func (p *Proxy) confirmed(r *request, stored *cache.Manifest, m *manifest) *manifest {
	h := cache.Holding{MediaType: m.mediaType, Learned: r.learned(m.from, m.at)}
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
	var a answer
	if len(known) == 0 {
		a = p.askForTag(r.http.Context(), r, &w.line, manifestQuery{method: r.http.Method}, nil)
	} else {
		a = p.inquiries.begin(r, func(ctx context.Context, i *inquiry) answer {
			return p.refreshTag(ctx, r, i, known)
		}).get(r, &w.line, func(err error) bool { return p.staleMeaning(r, known, err) != nil })
	}
	if a.err != nil {
		if k := p.staleMeaning(r, known, a.err); k != nil {
			w.line.cache = "stale"
			stale := k.manifest()
			stale.stale = true
			return stale, nil
		}
		return nil, a.err
	}
	return p.contentOf(w, r, a.m)
}

// askForTag asks the upstream what r's tag means and records it.
func (p *Proxy) askForTag(ctx context.Context, r *request, l *accessLine, q manifestQuery, known []meaning) answer {
	a := p.askForManifest(ctx, r, l, q)
	if a.err == nil {
		p.learn(r, a.m, known)
	}
	return a
}

// refreshTag asks the upstream what r's tag means now. If the clients got what it meant before
// and the tag has moved, it fetches the new manifest, so that the next client gets that.
func (p *Proxy) refreshTag(ctx context.Context, r *request, i *inquiry, known []meaning) answer {
	a := p.askForManifest(ctx, r, &i.line, confirmation)
	if a.err != nil {
		return a
	}
	if stored, _ := p.cache.Manifest(r.repository(), a.m.digest, !r.caller.Trusted); stored == nil && a.m.body == nil && i.isLate() {
		if full := p.askForManifest(ctx, r, &i.line, manifestQuery{method: http.MethodGet, impatient: true}); full.err == nil {
			a = full
			p.storeManifest(r, a.m)
		}
	}
	p.learn(r, a.m, known)
	return a
}

// contentOf returns the manifest that an upstream has just described or sent.
func (p *Proxy) contentOf(w *response, r *request, m *manifest) (*manifest, error) {
	if m.body == nil && r.http.Method == http.MethodGet {
		if stored, _ := p.cache.Manifest(r.repository(), m.digest, !r.caller.Trusted); stored != nil {
			w.line.cache = "hit"
			return p.confirmed(r, stored, m), nil
		}
		var err error
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
		stored, _ := p.cache.Manifest(r.repository(), m.Digest, !r.caller.Trusted)
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
		Digest: m.digest, MediaType: m.mediaType, Size: m.size, Warning: m.warning, Seen: time.Now(), Learned: r.learned(m.from, m.at),
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

// confirmation asks for the description alone, which Docker Hub does not count against the
// limit on pulls. Something is stored to fall back to.
var confirmation = manifestQuery{method: http.MethodHead, impatient: true}

// asManifest returns a stored manifest as the one that was asked for.
func asManifest(m *cache.Manifest, h *cache.Holding) *manifest {
	return &manifest{body: m.Body, size: int64(len(m.Body)), digest: m.Digest, mediaType: h.MediaType}
}

// store puts a manifest that was fetched for a response into the cache.
func (p *Proxy) store(w *response, r *request, m *manifest) {
	w.line.cache = "miss"
	if m.body != nil {
		p.storeManifest(r, m)
	}
}

// storeManifest puts a manifest into the cache. One that cannot be stored is served all the
// same.
func (p *Proxy) storeManifest(r *request, m *manifest) {
	h := cache.Holding{MediaType: m.mediaType, Learned: r.learned(m.from, m.at)}
	if err := p.cache.PutManifest(r.repository(), m.digest, m.body, h); err != nil {
		p.log.WithError(err).WithField("digest", m.digest).Warn("cannot store a manifest")
	}
}
