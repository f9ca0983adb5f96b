package proxy

import (
	"context"
	"encoding/json"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// wholeImageAgents are the beginnings of what podman, buildah, skopeo, CRI-O and other users of
// containers/image call themselves. They choose a mirror by its manifest and never leave it after that
// (docker_image_src.go, newImageSource).
var wholeImageAgents = []string{"containers/", "libpod/", "podman/", "buildah/", "skopeo/", "cri-o/"}

// choosesMirror reports whether a request for a manifest decides if sidemirror is the mirror for the
// whole image: the client falls back to the registry now, and not later.
func choosesMirror(r *http.Request, asked oci.Request) bool {
	if asked.Form != oci.ByPrefix || asked.Kind != oci.Manifest {
		return false
	}
	agent := strings.ToLower(r.Header.Get("User-Agent"))
	return slices.ContainsFunc(wholeImageAgents, func(start string) bool { return strings.HasPrefix(agent, start) })
}

const (
	maxAskedAtOnce = 8   // requests about the blobs of one image at a time
	maxAsked       = 256 // of its blobs

	// wholeImageLimit is for all of them. A client that is refused then has the registry itself.
	wholeImageLimit = 3 * time.Second

	// justDescribed is how long an upstream's description of a blob counts: from an index to the
	// manifest that the client asks for next.
	justDescribed = 10 * time.Second
)

// checkWholeImage makes sure that the blobs of a manifest can be served to a client that would not
// ask the registry for them: each is stored, or an upstream describes it now. An error refuses the
// manifest, so that the client pulls all of the image from the registry.
func (p *Proxy) checkWholeImage(w *response, r *request, m *manifest) error {
	if r.http.Method != http.MethodGet || !choosesMirror(r.http, r.Request) {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.http.Context(), wholeImageLimit)
	defer cancel()
	body := m.body
	if oci.IsIndex(m.mediaType) {
		var err error
		if body, err = p.ownPlatform(ctx, w, r, body); err != nil {
			return incomplete(err)
		}
	}
	blobs := blobsOf(body)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxAskedAtOnce)
	for _, blob := range blobs[:min(len(blobs), maxAsked)] {
		group.Go(func() error { return p.checkBlob(ctx, w, r, blob) })
	}
	if err := group.Wait(); err != nil {
		return incomplete(err)
	}
	return nil
}

// incomplete returns the refusal of a manifest whose image cannot be served as a whole.
func incomplete(err error) error {
	e := *oci.AsError(err)
	e.Code, e.Status, e.Err, e.Passed = oci.Unavailable, http.StatusBadGateway, err, nil
	e.Message = "the image cannot be served as a whole: " + e.Message
	return &e
}

// ownPlatform returns the manifest of an index for the platform of this host, whose engines ask. It is
// nil if there is none: the client then chooses one that cannot be known.
func (p *Proxy) ownPlatform(ctx context.Context, w *response, r *request, index []byte) ([]byte, error) {
	var list v1.Index
	if json.Unmarshal(index, &list) != nil {
		return nil, nil
	}
	i := slices.IndexFunc(list.Manifests, func(d v1.Descriptor) bool {
		return d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == runtime.GOARCH && d.Digest.Validate() == nil
	})
	if i < 0 {
		return nil, nil
	}
	of := *r
	of.Digest, of.Tag = list.Manifests[i].Digest, ""
	of.http = r.http.WithContext(ctx)
	line := w.line
	m, err := p.findManifest(&response{line: line}, &of)
	if err != nil {
		return nil, err
	}
	return m.body, nil
}

// checkBlob makes sure that one blob can be served.
func (p *Proxy) checkBlob(ctx context.Context, w *response, r *request, blob v1.Descriptor) error {
	of := *r
	of.Kind, of.Digest, of.Tag = oci.Blob, blob.Digest, ""
	of.http = r.http.WithContext(ctx)
	if p.cache != nil {
		known := p.may(&of, p.cache.BlobHoldings(of.repository(), of.Digest))
		if known != nil && (p.cache.HasBlob(blob.Digest) || time.Since(known.Since) < justDescribed) {
			return nil
		}
	}
	line := w.line // several blobs are asked for at once
	asked := time.Now()
	d, u, err := of.describeBlob(ctx, &line, false)
	if err != nil {
		p.noteRefusal(&of, u, err)
		if p.cache != nil && p.cache.HasBlob(blob.Digest) && p.mayWhileAway(&of, p.cache.BlobHoldings(of.repository(), of.Digest), err) != nil {
			return nil
		}
		return err
	}
	if d.proves(blob.Digest, blob.Size) {
		p.holdsBlob(&of, u, asked)
	}
	return nil
}

// blobsOf returns the blobs of a manifest that registries serve.
func blobsOf(body []byte) []v1.Descriptor {
	var m v1.Manifest
	if json.Unmarshal(body, &m) != nil {
		return nil
	}
	return slices.DeleteFunc(append([]v1.Descriptor{m.Config}, m.Layers...), func(l v1.Descriptor) bool { return isForeign(l) || l.Digest.Validate() != nil })
}

// isForeign reports whether a layer is not for registries to serve.
func isForeign(l v1.Descriptor) bool {
	return len(l.URLs) > 0 || strings.Contains(l.MediaType, "nondistributable") || strings.Contains(l.MediaType, ".foreign.")
}
