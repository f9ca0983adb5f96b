package quirky

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Part is a part of the upstream: what a request was sent to.
type Part string

// The parts of an upstream.
const (
	Registry  Part = "registry"
	Token     Part = "token"
	BlobStore Part = "blobs"
)

// Request is one request as it came in, and how it was answered.
type Request struct {
	Part       Part
	Method     string
	Host, Path string
	Query      url.Values
	Header     http.Header
	Body       string // its first 64 KiB
	Remote     string
	Proto      string
	At         time.Time

	// Status is 0 until the answer's header was written.
	Status int

	// Sent counts the bytes of the answer's body that were handed to the connection.
	Sent int64

	// Done is set when the handler has returned.
	Done bool
}

// Authorization is the request's Authorization header.
func (r Request) Authorization() string { return r.Header.Get("Authorization") }

// Requests are the requests so far to part, in the order they came in, whose
// method is method (any where it is empty) and whose path contains path.
func (s *Server) Requests(part Part, method, path string) []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Request
	for _, r := range s.requests {
		if r.Part == part && (method == "" || r.Method == method) && strings.Contains(r.Path, path) {
			found = append(found, *r)
		}
	}
	return found
}

// All are the requests so far to every part.
func (s *Server) All() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Request, len(s.requests))
	for i, r := range s.requests {
		all[i] = *r
	}
	return all
}

// Count is how many there are of Requests.
func (s *Server) Count(part Part, method, path string) int {
	return len(s.Requests(part, method, path))
}

// Forget forgets all requests so far.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// record wraps a part's handler.
func (s *Server) record(part Part, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
		if err != nil {
			body = append(body, err.Error()...)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		entry := &Request{
			Part: part, Method: r.Method, Host: r.Host, Path: r.URL.Path, Query: r.URL.Query(), Header: r.Header.Clone(),
			Body: string(body), Remote: r.RemoteAddr, Proto: r.Proto, At: time.Now(),
		}
		if part == Registry && strings.HasPrefix(r.URL.Path, tokenPath) {
			entry.Part = Token
		}
		s.mu.Lock()
		s.requests = append(s.requests, entry)
		intercept, ok := s.options.Intercept, s.options.OKStatus
		s.mu.Unlock()
		// A handler that resets its connection panics.
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			entry.Done = true
		}()
		rw := &recorder{ResponseWriter: w, server: s, entry: entry, ok: ok}
		if intercept != nil && intercept(entry.Part, rw, r) {
			return
		}
		next(rw, r)
	})
}

// recorder notes what the handler answers.
type recorder struct {
	http.ResponseWriter
	server *Server
	entry  *Request
	ok     int // sent in place of 200, if not 0
}

// Unwrap serves http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) WriteHeader(status int) {
	if status == http.StatusOK && w.ok != 0 {
		status = w.ok
	}
	w.note(status, 0)
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.ok != 0 && w.status() == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	w.note(http.StatusOK, n)
	return n, err
}

func (w *recorder) status() int {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	return w.entry.Status
}

// note keeps the first status.
func (w *recorder) note(status, sent int) {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	if w.entry.Status == 0 {
		w.entry.Status = status
	}
	w.entry.Sent += int64(sent)
}
