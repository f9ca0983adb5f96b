package shared

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// leave asks for a blob, and stops to wait before the store responds, as a pull does when a registry
// has responded.
func leave(t *testing.T, s *Store, asked <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := s.Open(ctx, digestOf(1), 0, -1); !errors.Is(err, context.Canceled) {
		t.Fatalf("an abandoned request: %v", err)
	}
}

func TestAStoreThatHangsIsLeftAloneThoughNoPullWaitsForIt(t *testing.T) {
	asked := make(chan struct{}, 1)
	s := fakeStore(t, 0, func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	})
	leave(t, s, asked)
	until(t, "the store is left alone", func() bool { return s.breaker.fault() != nil })
	if s.Ready() {
		t.Error("a store that hangs is asked")
	}
	if p := s.Problems(); len(p) != 1 || p[0].Code != codeUnreachable {
		t.Errorf("problems %v", p)
	}
}

func TestAStoreThatIsSlowerThanARegistryIsStillAsked(t *testing.T) {
	asked, responding := make(chan struct{}, 1), make(chan struct{})
	gone := make(chan struct{}, 1)
	s := fakeStore(t, 0, func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-responding
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Last-Modified", "Thu, 26 Nov 2026 07:00:00 GMT")
		w.Header().Set("Content-Length", "1000000")
		fmt.Fprint(w, "some")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		gone <- struct{}{}
	})
	for range tripsAfter + 1 {
		leave(t, s, asked)
		responding <- struct{}{}
		<-gone // nothing reads the content
	}
	if !s.Ready() {
		t.Errorf("a slow store is not asked: %v", s.Problems())
	}
}

func TestAnErrorThatNoPullWaitsForCountsToo(t *testing.T) {
	asked, responding := make(chan struct{}, 1), make(chan struct{})
	s := fakeStore(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-responding
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "<Error><Code>AccessDenied</Code></Error>")
	})
	leave(t, s, asked)
	responding <- struct{}{}
	until(t, "the refusal counts", func() bool { return s.breaker.fault() != nil })
}

// until waits until something is so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for !so() {
		select {
		case <-t.Context().Done():
			t.Fatalf("not so: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
