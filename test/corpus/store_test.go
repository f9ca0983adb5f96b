package corpus

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// store is an object storage that counts the blobs that hosts write to it.
type store struct {
	url string

	mu      sync.Mutex
	written map[string]bool
}

func startStore(t *testing.T) *store {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("layers"); err != nil {
		t.Fatal(err)
	}
	s := &store{written: map[string]bool{}}
	pass := gofakes3.New(backend, gofakes3.WithTimeSkewLimit(0)).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && strings.Contains(r.URL.Path, "/blobs/") {
			s.mu.Lock()
			s.written[r.URL.Path] = true
			s.mu.Unlock()
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// config is the configuration of a host that shares by the store.
func (s *store) config() string {
	return fmt.Sprintf("\n[cache.shared]\nurl = \"s3://layers?endpoint=%s&region=corpus\"\n", s.url)
}

// objects returns how many blobs were written.
func (s *store) objects() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.written)
}
