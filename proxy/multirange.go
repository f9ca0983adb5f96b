package proxy

import (
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"

	"github.com/sidemirror/sidemirror/internal/extent"
)

// multirange is a response with several parts of a blob (RFC 9110, 14.6).
type multirange struct {
	size  int64
	parts []extent.Extent
	form  *multipart.Writer
}

// header returns what goes before a part.
func (m *multirange) header(e extent.Extent) textproto.MIMEHeader {
	return textproto.MIMEHeader{
		"Content-Type":  {"application/octet-stream"},
		"Content-Range": {contentRange(e, m.size)},
	}
}

// newMultirange prepares a response, and sets its header fields.
func newMultirange(w io.Writer, h http.Header, parts []extent.Extent, size int64) *multirange {
	m := &multirange{size: size, parts: parts, form: multipart.NewWriter(w)}
	h.Set("Content-Type", "multipart/byteranges; boundary="+m.form.Boundary())
	h.Set("Content-Length", strconv.FormatInt(m.length(), 10))
	return m
}

// length returns how long the body will be.
func (m *multirange) length() int64 {
	var n counter
	form := multipart.NewWriter(&n)
	if err := form.SetBoundary(m.form.Boundary()); err != nil {
		panic(err) // it is one that the package made
	}
	for _, e := range m.parts {
		_, _ = form.CreatePart(m.header(e))
		n += counter(e.Len())
	}
	_ = form.Close()
	return int64(n)
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// send writes the parts, each by copyPart, to the writer that is given to it. That is the response
// itself, so that files go out by sendfile.
func (m *multirange) send(copyPart func(e extent.Extent) error) error {
	for _, e := range m.parts {
		if _, err := m.form.CreatePart(m.header(e)); err != nil {
			return fmt.Errorf("sending a part: %w", err)
		}
		if err := copyPart(e); err != nil {
			return err
		}
	}
	return m.form.Close()
}
