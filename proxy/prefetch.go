package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/proxy/observe"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/prefetch"
	"github.com/sidemirror/sidemirror/proxy/transfer"
)

// worthPrefetching is how long the first range of a blob must be to be the beginning of a pull. Lazy
// clients ask for less, and never want the rest.
const worthPrefetching = 1 << 20

// newPrefetcher returns what fetches layers ahead of the engines; nil if c switches it off.
func (p *Proxy) newPrefetcher(c Config) *prefetch.Prefetcher {
	if !c.Prefetch || c.Cache == nil {
		return nil
	}
	return prefetch.New(func(r prefetch.Report) {
		entry := p.log.WithFields(logrus.Fields{"digest": r.Manifest, "bytes": r.Bytes, "unused": r.Unused})
		if r.Err != nil {
			entry = entry.WithError(r.Err)
		}
		p.observer.Prefetched(r.Bytes, r.Unused)
		entry.Debug("fetched layers before an engine asked for them")
	})
}

// served records that a manifest is served to r's caller, who may ask for its layers next. Nothing is
// fetched ahead for untrusted callers, whose share of the cache is small.
func (p *Proxy) served(r *request, m *manifest) {
	if p.prefetch == nil || !r.caller.Trusted || r.http.Method != http.MethodGet || oci.IsIndex(m.mediaType) {
		return
	}
	p.prefetch.Served(r.fillName(), m.digest, &prefetchedImage{proxy: p, request: r, manifest: m.digest})
}

// asked records that r's caller asks for a blob. It reports whether the blob was fetched ahead, and no
// client has asked for it before.
func (p *Proxy) asked(r *request, missing bool) (ahead bool) {
	if p.prefetch == nil || !r.caller.Trusted || r.http.Method != http.MethodGet {
		return false
	}
	return p.prefetch.Asked(r.fillName(), r.Digest, missing && beginsPull(parseRanges(r.http.Header, r.Digest)))
}

// responded records that an upstream has responded to r, a request for a blob.
func (p *Proxy) responded(r *request) {
	if p.prefetch != nil && r.caller.Trusted && beginsPull(parseRanges(r.http.Header, r.Digest)) {
		p.prefetch.Begin(r.fillName(), r.Digest)
	}
}

// beginsPull reports whether ranges of a blob are what an engine asks for that pulls all of it.
func beginsPull(ranges []transfer.Range) bool {
	switch len(ranges) {
	case 0:
		return true
	case 1:
		return ranges[0].Start == 0 && (ranges[0].End < 0 || ranges[0].End >= worthPrefetching)
	}
	return false
}

// prefetchedImage implements [prefetch.Image] in the name of the request for its manifest.
type prefetchedImage struct {
	proxy    *Proxy
	request  *request
	manifest digest.Digest
}

// Layers implements [prefetch.Image]. Layers that are not for registries to serve are left out.
func (i *prefetchedImage) Layers() []v1.Descriptor {
	stored, err := i.proxy.cache.Manifest(i.request.repository(), i.manifest, false)
	if err != nil {
		return nil
	}
	var m v1.Manifest
	if json.Unmarshal(stored.Body, &m) != nil {
		return nil
	}
	return slices.DeleteFunc(m.Layers, func(l v1.Descriptor) bool { return isForeign(l) || l.Digest.Validate() != nil })
}

// Stored implements [prefetch.Image].
func (i *prefetchedImage) Stored(d digest.Digest) bool { return i.proxy.cache.HasBlob(d) }

// Fetch implements [prefetch.Image].
func (i *prefetchedImage) Fetch(ctx context.Context, l v1.Descriptor) (err error) {
	p := i.proxy
	r := *i.request
	if r.span != nil {
		r.span = r.span.Begin(observe.Step{Kind: observe.StepFetchAhead, Digest: l.Digest.String()})
		defer func() { r.span.End(observe.Result{Failed: err != nil}) }()
	}
	r.Kind, r.Digest, r.Tag = oci.Blob, l.Digest, ""
	f := &fetch{request: &r, ahead: p.prefetch}
	reader, _, err := p.openBlob(ctx, &r, transfer.Want{
		Digest:   r.Digest,
		Source:   f,
		By:       r.fillName(),
		Granted:  p.may(&r, p.cache.BlobHoldings(r.repository(), r.Digest)) != nil,
		Parallel: 1,
		Ahead:    true,
		Verified: func(name string) { p.holdsBlob(&r, r.registry.upstream(name), f.askedAt()) },
	}, f)
	switch {
	case errors.Is(err, transfer.ErrStored):
		return nil
	case errors.Is(err, transfer.ErrForeign):
		return prefetch.ErrSkip
	case errors.Is(err, transfer.ErrNoConnection):
		return prefetch.ErrBusy
	case err != nil:
		return err
	}
	defer reader.Close()
	return reader.Wait(ctx)
}
