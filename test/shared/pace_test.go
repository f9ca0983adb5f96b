package shared

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pace is a proxy in front of a registry with a link of so many bytes a second for all its clients.
type pace struct {
	url  string
	rate atomic.Int64 // 0: no limit
	sent atomic.Int64 // bytes of blobs

	mu   sync.Mutex
	next time.Time
}

func newPace(t *testing.T, registry string, rate int64) *pace {
	t.Helper()
	p := &pace{}
	p.rate.Store(rate)
	pass := httputil.NewSingleHostReverseProxy(mustParse(t, registry))
	pass.ErrorLog = quiet
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			pass.ServeHTTP(w, r)
			return
		}
		pass.ServeHTTP(&pacedWriter{ResponseWriter: w, pace: p}, r)
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// pacedWriter writes as quickly as the link allows.
type pacedWriter struct {
	http.ResponseWriter
	pace *pace
}

// Write implements [io.Writer].
func (w *pacedWriter) Write(b []byte) (int, error) {
	if rate := w.pace.rate.Load(); rate > 0 {
		w.pace.mu.Lock()
		now := time.Now()
		if w.pace.next.Before(now) {
			w.pace.next = now
		}
		wait := w.pace.next.Sub(now)
		w.pace.next = w.pace.next.Add(time.Duration(int64(len(b)) * int64(time.Second) / rate))
		w.pace.mu.Unlock()
		time.Sleep(wait)
	}
	n, err := w.ResponseWriter.Write(b)
	w.pace.sent.Add(int64(n))
	return n, err
}

// Unwrap lets the proxy flush.
func (w *pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
