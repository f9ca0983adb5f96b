package proxy

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

// downloads is an Observer that remembers downloads under way, and those that are over.
type downloads struct {
	observe.Nothing
	mu    sync.Mutex
	began []*observe.Download
	over  []*observe.Download
}

func (o *downloads) DownloadBegan(d *observe.Download) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.began = append(o.began, d)
}

func (o *downloads) DownloadEnded(d *observe.Download) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = append(o.over, d)
}

// next waits until n downloads have begun and over of them have ended, and returns the last one.
func (o *downloads) next(t *testing.T, n, over int) *observe.Download {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		o.mu.Lock()
		began, ended := len(o.began), len(o.over)
		if began == n && ended == over {
			defer o.mu.Unlock()
			return o.began[n-1]
		}
		o.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("%d downloads have begun and %d ended, want %d and %d", began, ended, n, over)
		}
	}
}

func TestADownloadIsReportedWhileItIsUnderWay(t *testing.T) {
	t.Parallel()
	blob := strings.Repeat("layer ", 1<<20)
	path := "/v2/library/a/blobs/" + digest.FromString(blob).String()
	more := make(chan struct{})
	o := &downloads{}
	g := newRig(t, observed(t, o), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "6291456")
		_, _ = io.WriteString(w, blob[:2<<20])
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, blob[2<<20:])
	})
	done := make(chan got)
	go func() { done <- g.do(t, "GET", path, "User-Agent", "containerd/2.1.4") }()
	d := o.next(t, 1, 0)
	for deadline := time.Now().Add(20 * time.Second); d.Sent() < 2<<20; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are sent, want half", d.Sent())
		}
	}
	if d.Sent() != 2<<20 || d.Size != int64(len(blob)) || d.Source != observe.Upstream || d.From == "" || !d.Trusted || d.Key.Repository != "library/a" || d.Key.Engine != "containerd" {
		t.Errorf("after half of it: %d of %+v", d.Sent(), d)
	}
	close(more)
	if first := <-done; string(first.body) != blob {
		t.Fatalf("got %d bytes, %v", len(first.body), first.err)
	}
	if o.next(t, 1, 1).Sent() != int64(len(blob)) {
		t.Errorf("at the end %d bytes are sent", d.Sent())
	}

	for deadline := time.Now().Add(20 * time.Second); ; {
		again := g.do(t, "GET", path)
		if string(again.body) != blob {
			t.Fatalf("got %d bytes, %v", len(again.body), again.err)
		}
		o.mu.Lock()
		last := o.began[len(o.began)-1]
		o.mu.Unlock()
		if last.Source == observe.Cache { // it is stored a little after it was sent
			o.mu.Lock()
			n := len(o.began)
			o.mu.Unlock()
			o.next(t, n, n) // the client has the last byte before it is counted
			if last.From != "" || last.Sent() != int64(len(blob)) || last.Size != int64(len(blob)) {
				t.Errorf("from the cache: %d of %+v", last.Sent(), last)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is not stored")
		}
	}
	o.mu.Lock()
	n := len(o.began)
	o.mu.Unlock()
	if part := g.do(t, "GET", path, "Range", "bytes=100-2000099"); string(part.body) != blob[100:2000100] {
		t.Errorf("got %d bytes of a range", len(part.body))
	}
	if d := o.next(t, n+1, n+1); d.Size != 2000000 || d.Sent() != 2000000 {
		t.Errorf("of a range: %d of %+v", d.Sent(), d)
	}
	for name, ask := range map[string]func(){
		"a HEAD":        func() { g.do(t, "HEAD", path) },
		"a small range": func() { g.do(t, "GET", path, "Range", "bytes=0-99") },
	} {
		ask()
		if o.next(t, n+1, n+1); t.Failed() {
			t.Errorf("%s is reported", name)
		}
	}
}

func TestADownloadEndsWhenItsClientLeaves(t *testing.T) {
	t.Parallel()
	blob := strings.Repeat("layer ", 1<<20)
	more := make(chan struct{})
	defer close(more)
	o := &downloads{}
	g := newRig(t, observed(t, o), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "6291456")
		_, _ = io.WriteString(w, blob[:2<<20])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-more:
		case <-r.Context().Done():
		}
	})
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+"/v2/library/a/blobs/"+digest.FromString(blob).String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	o.next(t, 1, 0)
	leave()
	_ = resp.Body.Close()
	o.next(t, 1, 1)
}
