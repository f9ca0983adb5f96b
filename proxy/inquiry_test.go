package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// asking returns a request for a tag of a repository.
func asking(ctx context.Context, repository, tag string) *request {
	return &request{
		Request: oci.Request{Kind: oci.Manifest, Form: oci.ByNamespace, Registry: "docker.io", Repository: repository, Tag: tag},
		http:    httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil),
	}
}

// blocked returns an ask that waits until release is closed, and how often it was called.
func blocked(release chan struct{}) (ask func(context.Context, *inquiry) answer, calls *atomic.Int32) {
	calls = new(atomic.Int32)
	return func(ctx context.Context, _ *inquiry) answer {
		calls.Add(1)
		select {
		case <-release:
			return answer{m: &manifest{}}
		case <-ctx.Done():
			return answer{err: ctx.Err()}
		}
	}, calls
}

func something(error) bool { return true }
func nothing(error) bool   { return false }

func TestOneInquiryServesAllClientsThatAskTheSame(t *testing.T) {
	q := newInquiries(time.Hour)
	defer q.close()
	release := make(chan struct{})
	ask, calls := blocked(release)
	var wait sync.WaitGroup
	var begun sync.WaitGroup
	begun.Add(20)
	for range 20 {
		wait.Go(func() {
			r := asking(context.Background(), "o/i", "v1")
			i := q.begin(r, ask)
			begun.Done()
			if a := i.get(r, &accessLine{}, nothing); a.err != nil || a.m == nil {
				t.Errorf("%+v", a)
			}
		})
	}
	begun.Wait()
	close(release)
	wait.Wait()
	if n := calls.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestALateInquiryIsWaitedForOncePerRepository(t *testing.T) {
	q := newInquiries(500 * time.Millisecond)
	defer q.close()
	release := make(chan struct{})
	slow, _ := blocked(release)
	r := asking(context.Background(), "o/i", "v1")
	first := q.begin(r, slow)
	if a := first.get(r, &accessLine{}, something); !errors.Is(a.err, errSlow) {
		t.Fatalf("%+v", a)
	}
	// Another one of the repository is late from the beginning.
	again := asking(context.Background(), "o/i", "v2")
	if second := q.begin(again, slow); !second.isLate() {
		t.Error("the second inquiry of the repository is waited for")
	}
	// One of another repository is not.
	other := q.begin(asking(context.Background(), "o/other", "v1"), func(context.Context, *inquiry) answer { return answer{m: &manifest{}} })
	<-other.done
	if other.isLate() {
		t.Error("an inquiry of another repository is late")
	}
	// A client without anything else waits.
	got := make(chan answer, 1)
	go func() { got <- first.get(r, &accessLine{}, nothing) }()
	close(release)
	if a := <-got; a.err != nil || a.m == nil {
		t.Errorf("%+v", a)
	}
	// And when the slow ones are over, the next is waited for again.
	q.wait.Wait()
	next := q.begin(again, func(context.Context, *inquiry) answer { return answer{m: &manifest{}} })
	if a := next.get(again, &accessLine{}, nothing); a.err != nil {
		t.Errorf("%+v", a)
	}
	if next.isLate() {
		t.Error("the next inquiry is late")
	}
}

func TestAClientThatLeavesDoesNotEndTheInquiry(t *testing.T) {
	q := newInquiries(time.Hour)
	defer q.close()
	release := make(chan struct{})
	ask, _ := blocked(release)
	ctx, cancel := context.WithCancel(context.Background())
	r := asking(ctx, "o/i", "v1")
	i := q.begin(r, ask)
	cancel()
	if a := i.get(r, &accessLine{}, nothing); !errors.Is(a.err, context.Canceled) {
		t.Errorf("%+v", a)
	}
	close(release)
	<-i.done
	if i.err != nil || i.m == nil {
		t.Errorf("%+v", i.answer)
	}
}

func TestBeyondTheLimitAnInquiryLastsNoLongerThanItsClientWaits(t *testing.T) {
	q := newInquiries(20 * time.Millisecond)
	release := make(chan struct{})
	ask, _ := blocked(release)
	for n := range maxInquiries {
		q.begin(asking(context.Background(), "o/i", fmt.Sprint("v", n)), ask)
	}
	r := asking(context.Background(), "o/i", "one-more")
	if a := q.begin(r, ask).get(r, &accessLine{}, nothing); !errors.Is(a.err, context.DeadlineExceeded) {
		t.Errorf("%+v", a)
	}
	q.close() // which ends the others
	if len(q.running) != 0 || len(q.groups) != 0 {
		t.Errorf("%d inquiries and %d groups are left", len(q.running), len(q.groups))
	}
}

// A panic outside a handler would end the process.
func TestAPanicInAnInquiryIsAnErrorOfItAlone(t *testing.T) {
	q := newInquiries(time.Minute)
	defer q.close()
	r := asking(t.Context(), "library/alpine", "latest")
	i := q.begin(r, func(context.Context, *inquiry) answer { panic("a fault") })
	a := i.get(r, &accessLine{}, func(error) bool { return false })
	var e *oci.Error
	if !errors.As(a.err, &e) || e.Code != oci.Unavailable || e.Err == nil {
		t.Errorf("%v", a.err)
	}
	i = q.begin(r, func(context.Context, *inquiry) answer { return answer{} })
	if a := i.get(r, &accessLine{}, func(error) bool { return false }); a.err != nil {
		t.Errorf("the next inquiry: %v", a.err)
	}
}
