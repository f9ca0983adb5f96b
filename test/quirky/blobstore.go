package quirky

import (
	crand "crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// signedPath is where signed URLs lead, on the blob store or, with
// Blobs.Relative, on the registry.
const signedPath = "/signed/"

// signature is one signed URL.
type signature struct {
	blob    Blob
	expires time.Time
	used    bool
}

func (s *Server) serveBlob(w http.ResponseWriter, r *http.Request, repo *repository, d digest.Digest) {
	if s.limited(w) {
		return
	}
	s.mu.Lock()
	blob, ok := repo.blobs[d]
	s.mu.Unlock()
	if !ok {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	o := s.now().Blobs
	if o.Redirect == 0 {
		s.sendBlob(w, r, blob, o)
		return
	}
	location := s.sign(blob, o)
	if o.Location != nil {
		location = o.Location(location)
	}
	w.Header().Set("Location", location)
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(o.Redirect)
}

// sign makes a URL that needs nothing else. What it ends in is a secret: who
// has it has the blob.
func (s *Server) sign(blob Blob, o Blobs) string {
	life := o.Life
	if life == 0 {
		life = time.Hour
	}
	text := crand.Text()
	s.mu.Lock()
	s.signatures[text] = &signature{blob: blob, expires: time.Now().Add(life)}
	s.mu.Unlock()
	path := signedPath + blob.Digest.String() + "?X-Signature=" + url.QueryEscape(text)
	if o.Relative {
		return path
	}
	return s.blobs.URL + path
}

func (s *Server) serveBlobStore(w http.ResponseWriter, r *http.Request) {
	o := s.now().Blobs
	deny := func(status int, code string) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
	}
	if o.RefuseAuthorization && r.Header.Get("Authorization") != "" {
		deny(http.StatusBadRequest, "InvalidArgument")
		return
	}
	if o.RefuseHEAD && r.Method == http.MethodHead {
		deny(http.StatusForbidden, "SignatureDoesNotMatch")
		return
	}
	s.mu.Lock()
	sig := s.signatures[r.URL.Query().Get("X-Signature")]
	good := sig != nil && time.Now().Before(sig.expires) && !sig.used &&
		strings.HasSuffix(r.URL.Path, sig.blob.Digest.String())
	if good && o.OneUse && r.Method == http.MethodGet {
		sig.used = true
	}
	s.mu.Unlock()
	if !good {
		deny(http.StatusForbidden, "AccessDenied")
		return
	}
	o.NoDigest = true
	s.sendBlob(w, r, sig.blob, o)
}

func (s *Server) sendBlob(w http.ResponseWriter, r *http.Request, blob Blob, o Blobs) {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	if !o.NoDigest {
		h.Set("Docker-Content-Digest", blob.Digest.String())
	}
	how := sending{chunked: o.Chunked, gzip: o.Gzip, fault: s.fault(r, &s.options.Blobs.Fault)}
	body, status := blob.Bytes, http.StatusOK
	if first, last, ok := byteRange(r, len(body)); ok && !o.NoRange {
		if first >= len(body) {
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", len(body)))
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		if o.WrongRange {
			first, last = 0, last-first
		}
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(body)))
		body, status = body[first:last+1], http.StatusPartialContent
	}
	if !o.NoRange {
		h.Set("Accept-Ranges", "bytes")
	}
	s.send(w, r, body, status, how)
}

// byteRange is the one range that is asked for, both ends included.
func byteRange(r *http.Request, size int) (first, last int, ok bool) {
	spec, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	from, to, dash := strings.Cut(spec, "-")
	if !ok || !dash || strings.Contains(spec, ",") {
		return 0, 0, false
	}
	if from == "" {
		n, err := strconv.Atoi(to)
		return max(0, size-n), size - 1, err == nil
	}
	first, err := strconv.Atoi(from)
	if err != nil {
		return 0, 0, false
	}
	last = size - 1
	if to != "" {
		if last, err = strconv.Atoi(to); err != nil {
			return 0, 0, false
		}
	}
	return first, min(last, size-1), true
}
