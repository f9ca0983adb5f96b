package quirky

import (
	"bytes"
	"compress/gzip"
	"net"
	"net/http"
	"strconv"
)

// sending is how a body is sent.
type sending struct {
	chunked, gzip, noLength bool
	fault                   Fault
}

// fault takes one occurrence off f, which is in s.options, for an answer to GET.
func (s *Server) fault(r *http.Request, f *Fault) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := *f
	if r.Method != http.MethodGet {
		return Fault{}
	}
	if f.Times > 0 {
		if f.Times--; f.Times == 0 {
			*f = Fault{}
		}
	}
	return now
}

// send writes body, in the way that how says.
func (s *Server) send(w http.ResponseWriter, r *http.Request, body []byte, status int, how sending) {
	h := w.Header()
	if how.gzip {
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		_, _ = z.Write(body)
		_ = z.Close()
		body = zipped.Bytes()
		h.Set("Content-Encoding", "gzip")
	}
	f := how.fault
	at := min(f.At, len(body))
	switch f.Kind {
	case Short:
		body = body[:at]
	case Flip:
		body = bytes.Clone(body)
		if at < len(body) {
			body[at] ^= 1
		}
	case Extra:
		body = append(bytes.Clone(body), 'x')
	}
	if !how.chunked && !how.noLength {
		h.Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	c := http.NewResponseController(w)
	if how.chunked {
		_ = c.Flush()
	}
	if f.Kind == Reset || f.Kind == Cut || f.Kind == Stall || f.Wait != nil {
		_, _ = w.Write(body[:at])
		_ = c.Flush()
		body = body[at:]
	}
	if f.Wait != nil {
		select {
		case <-f.Wait:
		case <-r.Context().Done():
		case <-s.closing:
		}
	}
	switch f.Kind {
	case Reset, Cut:
		breakOff(c, f.Kind)
	case Stall:
		s.hang(r)
	default:
		_, _ = w.Write(body)
	}
}

// hang waits until the client leaves, or the test ends.
func (s *Server) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.closing:
	}
}

// breakOff ends the answer in the middle.
func breakOff(c *http.ResponseController, kind FaultKind) {
	conn, _, err := c.Hijack()
	if err != nil {
		// HTTP/2 cannot be hijacked; the server answers this panic with RST_STREAM.
		panic(http.ErrAbortHandler)
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		// TLS over HTTP/1.1: closing without close_notify is what a client sees as cut.
		conn.Close()
		return
	}
	if kind == Reset {
		drained(tcp)
		_ = tcp.SetLinger(0)
	}
	tcp.Close()
}
