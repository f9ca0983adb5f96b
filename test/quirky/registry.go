package quirky

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func (s *Server) serveRegistry(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, tokenPath):
		s.serveToken(w, r)
		return
	case strings.HasPrefix(path, signedPath):
		s.serveBlobStore(w, r)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "read only")
		return
	case path == "/v2/":
		if s.authorized(w, r, "") {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("{}"))
		}
		return
	}
	name, kind, last := split(path)
	if kind == "" {
		refuse(w, http.StatusNotFound, "UNKNOWN", "no such page")
		return
	}
	if !s.authorized(w, r, name) {
		return
	}
	s.mu.Lock()
	repo := s.repos[name]
	s.mu.Unlock()
	if repo == nil {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "no such repository")
		return
	}
	switch kind {
	case "manifests":
		s.serveManifest(w, r, repo, last)
	case "blobs":
		s.serveBlob(w, r, repo, digest.Digest(last))
	case "tags":
		s.serveTags(w, r, name, repo)
	case "referrers":
		s.serveReferrers(w, r, repo, digest.Digest(last))
	}
}

// split takes /v2/<name>/<kind>/<last> apart; kind is empty where it is not that.
func split(path string) (name, kind, last string) {
	parts := strings.Split(strings.TrimPrefix(path, "/v2/"), "/")
	if n := len(parts); n >= 3 {
		name, kind, last = strings.Join(parts[:n-2], "/"), parts[n-2], parts[n-1]
	}
	switch kind {
	case "manifests", "blobs", "referrers":
		return name, kind, last
	case "tags":
		if last == "list" {
			return name, kind, last
		}
	}
	return "", "", ""
}

// limited answers in place of the registry where the rate limit has it so.
func (s *Server) limited(w http.ResponseWriter) bool {
	s.mu.Lock()
	l := s.options.Limit
	if l.Status != 0 && l.Times > 0 {
		if s.options.Limit.Times--; s.options.Limit.Times == 0 {
			s.options.Limit.Status = 0
		}
	}
	s.mu.Unlock()
	for name, values := range l.Header {
		w.Header()[name] = values
	}
	if l.Status == 0 {
		return false
	}
	if l.RetryAfter != "" {
		w.Header().Set("Retry-After", l.RetryAfter)
	}
	w.Header().Set("Content-Type", "text/plain")
	if strings.HasPrefix(l.Body, "{") {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(l.Status)
	_, _ = w.Write([]byte(l.Body))
	return true
}

func (s *Server) serveManifest(w http.ResponseWriter, r *http.Request, repo *repository, reference string) {
	if s.limited(w) {
		return
	}
	o := s.now().Manifest
	if o.HEADStatus != 0 && r.Method == http.MethodHead {
		w.WriteHeader(o.HEADStatus)
		return
	}
	if o.HTML {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<html><body>Please sign in to the guest network</body></html>"))
		return
	}
	s.mu.Lock()
	d, tagged := repo.tags[reference]
	if !tagged {
		d = digest.Digest(reference)
	}
	image, ok := repo.manifests[d]
	s.mu.Unlock()
	if !ok {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	if o.Negotiate && tagged && len(image.Images) > 0 && !accepts(r, image.MediaType) {
		image = image.Images[0]
	}
	h := w.Header()
	h.Set("Content-Type", image.MediaType)
	if o.Type != "" {
		h.Set("Content-Type", o.Type)
	}
	if o.NoType {
		h["Content-Type"] = nil
	}
	if !o.NoDigest {
		h.Set("Docker-Content-Digest", image.Digest.String())
	}
	s.send(w, r, image.Bytes, http.StatusOK, sending{
		chunked: o.Chunked, gzip: o.Gzip, noLength: o.NoLength && r.Method == http.MethodHead,
		fault: s.fault(r, &s.options.Manifest.Fault),
	})
}

func accepts(r *http.Request, mediaType string) bool {
	for _, value := range r.Header.Values("Accept") {
		for member := range strings.SplitSeq(value, ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(member), ";")
			if name == mediaType || name == "*/*" {
				return true
			}
		}
	}
	return false
}

func (s *Server) serveTags(w http.ResponseWriter, r *http.Request, name string, repo *repository) {
	o := s.now().Lists
	s.mu.Lock()
	tags := repo.sortedTags()
	s.mu.Unlock()
	if last := r.URL.Query().Get("last"); last != "" {
		for len(tags) > 0 && tags[0] <= last {
			tags = tags[1:]
		}
	}
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil || o.PageSize != 0 && n > o.PageSize {
		n = o.PageSize
	}
	if n > 0 && len(tags) > n {
		tags = tags[:n]
		next := fmt.Sprintf("/v2/%s/tags/list?n=%d&last=%s", name, n, url.QueryEscape(tags[n-1]))
		if o.AbsoluteLink {
			next = s.URL() + next
		}
		w.Header().Set("Link", "<"+next+`>; rel="next"`)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(marshal(map[string]any{"name": name, "tags": tags}))
}

func (s *Server) serveReferrers(w http.ResponseWriter, r *http.Request, repo *repository, subject digest.Digest) {
	o := s.now().Lists
	if o.NoReferrers {
		refuse(w, http.StatusNotFound, "UNKNOWN", "no such page")
		return
	}
	wanted := r.URL.Query().Get("artifactType")
	if wanted != "" && !o.Unfiltered {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	index := v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{},
	}
	s.mu.Lock()
	for _, image := range repo.manifests {
		if image.Subject == subject && (wanted == "" || o.Unfiltered || wanted == image.ArtifactType) {
			index.Manifests = append(index.Manifests, image.descriptor())
		}
	}
	s.mu.Unlock()
	w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
	_, _ = w.Write(marshal(index))
}

// refuse writes an error body as in the OCI specification.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(marshal(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}}))
}
