package upstream

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// maxCodings bounds how often a response may be compressed.
const maxCodings = 3

// maxName bounds the name of a coding in a message.
const maxName = 40

// encoded reports whether resp says that its content is compressed. Every request asks
// for the content as it is, and some servers compress it all the same.
func encoded(resp *http.Response) bool { return len(codings(resp)) > 0 }

// codings returns the values of Content-Encoding, lower case, in the order in which they
// were applied.
func codings(resp *http.Response) []string {
	var all []string
	for _, v := range resp.Header.Values("Content-Encoding") {
		for c := range strings.SplitSeq(v, ",") {
			if c = strings.ToLower(strings.TrimSpace(c)); c != "" && c != "identity" {
				all = append(all, c)
			}
		}
	}
	return all
}

// decode undoes the Content-Encoding of resp, so that the digest and the length are those
// of the content. An encoding that it does not know is an error if the response has a
// body that the client is to get.
func (u *Upstream) decode(method string, resp *http.Response) (*http.Response, error) {
	all := codings(resp)
	resp.Header.Del("Content-Encoding")
	resp.Header.Del("Content-Length")
	if method == http.MethodHead || resp.ContentLength == 0 {
		if method == http.MethodHead {
			resp.ContentLength = -1 // what it says is the length of the compressed content
		}
		return resp, nil
	}
	if len(all) > maxCodings {
		drain(resp)
		return nil, u.refuseEncoding(strings.Join(all, ", "))
	}
	for i := len(all) - 1; i >= 0; i-- {
		if !decodeOnce(all[i], resp) && resp.StatusCode < 300 {
			drain(resp)
			return nil, u.refuseEncoding(all[i])
		}
	}
	return resp, nil
}

func (u *Upstream) refuseEncoding(name string) error {
	return &oci.Error{
		Code:    oci.Unavailable,
		Message: fmt.Sprintf("%s sent content compressed as %q, which was not asked for and cannot be decoded", u.url.Host, name[:min(len(name), maxName)]),
	}
}

// decodeOnce undoes one coding of resp. Content that does not begin as the coding does is
// not compressed, whatever the header says, and stays as it is. It returns false for a
// coding that it does not know.
func decodeOnce(coding string, resp *http.Response) bool {
	switch coding {
	case "gzip", "x-gzip", "deflate":
	default:
		return false
	}
	buffered := bufio.NewReaderSize(resp.Body, 32<<10)
	decoded := &decodedBody{Reader: buffered, body: resp.Body}
	start, _ := buffered.Peek(2)
	switch {
	case coding == "deflate" && isZlib(start):
		decoded.open = func() (io.Reader, error) { return zlib.NewReader(buffered) }
	case coding == "deflate": // RFC 9110 means zlib, and some servers send the bare stream
		decoded.open = func() (io.Reader, error) { return flate.NewReader(buffered), nil }
	case string(start) == "\x1f\x8b":
		decoded.open = func() (io.Reader, error) { return gzip.NewReader(buffered) }
	}
	if decoded.open != nil {
		resp.ContentLength = -1
	}
	resp.Body = decoded
	return true
}

// isZlib reports whether start is the header of RFC 1950.
func isZlib(start []byte) bool {
	return len(start) == 2 && start[0]&0x0f == 8 && (int(start[0])<<8|int(start[1]))%31 == 0
}

// decodedBody reads what open returns, from the first Read on.
type decodedBody struct {
	io.Reader
	body io.Closer
	open func() (io.Reader, error)
}

// Read implements [io.Reader].
func (b *decodedBody) Read(p []byte) (int, error) {
	if b.open != nil {
		r, err := b.open()
		if err != nil {
			return 0, fmt.Errorf("decoding: %w", err)
		}
		b.Reader, b.open = r, nil
	}
	return b.Reader.Read(p)
}

// Close implements [io.Closer].
func (b *decodedBody) Close() error { return b.body.Close() }
