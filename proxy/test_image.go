package proxy

import (
	"net/http"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/testimage"
)

// isTestImage reports whether a request is for the image that sidemirror serves itself. It is asked
// for in the same way as every other image, so that "sidemirror doctor" sees what an engine's pulls
// meet on their way.
func isTestImage(r *request) bool {
	return r.Repository == testimage.Repository && (r.Kind == oci.Manifest || r.Kind == oci.Blob)
}

// serveTestImage responds for the image that sidemirror serves itself. It asks no upstream and stores
// nothing.
func serveTestImage(w *response, r *request) error {
	wanted, mediaType := r.Digest, "application/octet-stream"
	if manifest := testimage.Manifest(); r.Kind == oci.Manifest {
		if r.Tag != "" {
			wanted = manifest.Digest
			w.line.digest = wanted
		}
		if wanted != manifest.Digest {
			return &oci.Error{Code: oci.ManifestUnknown, Message: "sidemirror's test image has no such manifest"}
		}
		mediaType = manifest.MediaType
	}
	content, found := testimage.Content(wanted)
	if !found {
		return &oci.Error{Code: oci.BlobUnknown, Message: "sidemirror's test image has no such blob"}
	}
	return sendContent(w, r, wanted, mediaType, content)
}

// sendContent sends content that is held in memory.
func sendContent(w *response, r *request, of digest.Digest, mediaType string, content []byte) error {
	w.setHeader("Docker-Content-Digest", of.String())
	w.setHeader("Content-Type", mediaType)
	w.setHeader("Content-Length", strconv.Itoa(len(content)))
	w.WriteHeader(http.StatusOK)
	if r.http.Method == http.MethodHead {
		return nil
	}
	_, err := w.Write(content)
	return err
}
