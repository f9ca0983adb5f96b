package listener

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

const wellFormed = "GET /v2/ HTTP/1.1\r\nHost: localhost:305\r\nAccept: a, b\r\nX-Empty:\r\n\r\n"

func TestScannerRefusesWhatNetHTTPAccepts(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       error
	}{
		{"well-formed", wellFormed, nil},
		{"two requests", wellFormed + wellFormed, nil},
		{"body that looks like a fold", "POST /v2/auth HTTP/1.1\r\nContent-Length: 6\r\n\r\na\r\n b\n" + wellFormed, nil},
		{"body that looks like a head", "POST / HTTP/1.1\r\ncontent-length:\t33 \r\n\r\nA: b\r\nTransfer-Encoding: chunked\r\n" + wellFormed, nil},
		{"bare LF", "GET / HTTP/1.1\nHost: a\n\n" + wellFormed, nil},
		{"blank lines between", wellFormed + "\r\n\r\n" + wellFormed, nil},
		{"name that begins alike", "GET / HTTP/1.1\r\nTransfer-Encodings: x\r\nContent-Lengthy: y\r\nContent-Lengthy: y\r\n\r\n", nil},
		{"fold by space", "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", errFolded},
		{"fold by tab", "GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n", errFolded},
		{"fold of nothing", "GET / HTTP/1.1\r\nA: b\r\n \r\n\r\n", errFolded},
		{"fold after bare LF", "GET / HTTP/1.1\nA: b\n c\n\n", errFolded},
		{"fold after the request line", "GET / HTTP/1.1\r\n A: b\r\n\r\n", errFolded},
		{"fold in the second request", wellFormed + "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", errFolded},
		{"fold after a body", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", errFolded},
		{"chunked", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", errEncoded},
		{"identity, in capitals", "GET / HTTP/1.1\r\nTRANSFER-ENCODING: identity\r\n\r\n", errEncoded},
		{"both", "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", errEncoded},
		{"two equal lengths", "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", errTwoLengths},
		{"list of lengths", "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\nabc", errWrongLength},
		{"signed length", "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc", errWrongLength},
		{"empty length", "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", errWrongLength},
		{"length beyond int64", "POST / HTTP/1.1\r\nContent-Length: 9223372036854775808\r\n\r\n", errWrongLength},
		{"TLS", "\x16\x03\x01\x00\x10", errHello},
		{"TLS after a request", wellFormed + "\x16\x03\x01", errHello},
		{"TLS's byte in a line", "GET /\x16 HTTP/1.1\r\nA: \x16\r\n\r\n", nil},
		{"endless length", "POST / HTTP/1.1\r\nContent-Length: " + strings.Repeat("0", 100) + "\r\n\r\n", errWrongLength},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, portion := range []int{1, 2, 3, 7, len(tt.text)} {
				if err := scanAll(tt.text, portion); !errors.Is(err, tt.want) {
					t.Errorf("in portions of %d: got %v, want %v", portion, err, tt.want)
				}
			}
		})
	}
}

func TestScannerPassesOnWhatPrecedesTheFold(t *testing.T) {
	var s headerScanner
	bad := "GET / HTTP/1.1\r\nA: b\r\n"
	n := s.scan([]byte(wellFormed + bad + " c\r\n\r\n"))
	if n != len(wellFormed)+len(bad) || s.err == nil {
		t.Errorf("passed on %d bytes (%v), want %d", n, s.err, len(wellFormed)+len(bad))
	}
}

func scanAll(text string, portion int) error {
	var s headerScanner
	for len(text) > 0 {
		n := min(portion, len(text))
		if s.scan([]byte(text[:n])) < n {
			return s.err
		}
		text = text[n:]
	}
	return nil
}

// parseAll returns how many requests net/http reads from text before it refuses one, and
// whether it accepted something that the scanner must refuse.
func parseAll(text []byte) (requests int, refusable bool) {
	r := bufio.NewReader(bytes.NewReader(text))
	for {
		// The server ignores blank lines after a POST; here they never count.
		for {
			if c, err := r.Peek(1); err != nil || c[0] != '\r' && c[0] != '\n' {
				break
			}
			_, _ = r.Discard(1)
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			return requests, refusable
		}
		if len(req.TransferEncoding) > 0 {
			return requests, true
		}
		if n, err := io.Copy(io.Discard, req.Body); err != nil || n != max(req.ContentLength, 0) {
			return requests, refusable
		}
		requests++
	}
}

func FuzzHeaderScanner(f *testing.F) {
	f.Add([]byte(wellFormed+wellFormed), 3)
	f.Add([]byte("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"), 1)
	f.Add([]byte("GET / HTTP/1.1\nA: b\n\r \n\n"), 2)
	f.Add([]byte("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), 5)
	f.Add([]byte("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na"), 9)
	f.Fuzz(func(t *testing.T, text []byte, portion int) {
		portion = min(max(portion, 1), len(text)+1)
		requests, refusable := parseAll(text)
		err := scanAll(string(text), portion)
		if err == nil && refusable {
			t.Fatalf("a Transfer-Encoding was not noticed in %q", text)
		}
		if err == nil {
			// No header may have a line that begins with a space.
			checkNoFold(t, text, requests)
			return
		}
		// The reason of a refusal must be in the text.
		lowered := bytes.ToLower(text)
		found := map[error]bool{
			errHello:       bytes.IndexByte(text, tlsHandshake) >= 0,
			errFolded:      bytes.Contains(text, []byte("\n ")) || bytes.Contains(text, []byte("\n\t")) || bytes.Contains(text, []byte("\r ")) || bytes.Contains(text, []byte("\r\t")),
			errEncoded:     bytes.Contains(lowered, []byte("transfer-encoding:")),
			errTwoLengths:  bytes.Count(lowered, []byte("content-length:")) > 1,
			errWrongLength: bytes.Contains(lowered, []byte("content-length:")),
		}
		if !found[err] {
			t.Fatalf("%q was refused for %v", text, err)
		}
	})
}

// checkNoFold reads the first requests of text, which net/http accepted, in another way: each
// header up to its empty line, split into lines, and each body by its length.
func checkNoFold(t *testing.T, text []byte, requests int) {
	for range requests {
		text = bytes.TrimLeft(text, "\r\n")
		end, skip := bytes.Index(text, []byte("\n\n")), 2
		if crlf := bytes.Index(text, []byte("\n\r\n")); end < 0 || crlf >= 0 && crlf < end {
			end, skip = crlf, 3
		}
		if end < 0 {
			t.Fatalf("a request without an end: %q", text)
		}
		for i, line := range bytes.Split(text[:end], []byte("\n")) {
			if i > 0 && len(line) > 0 && (line[0] == ' ' || line[0] == '\t') {
				t.Fatalf("a folded line was not noticed: %q", line)
			}
		}
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
		if err != nil {
			t.Fatalf("net/http reads %q alone in another way: %v", text, err)
		}
		text = text[end+skip+int(req.ContentLength):]
	}
}
