package harness

import (
	"bytes"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// Whole fails the test unless a is 200 with exactly want.
func (a Answer) Whole(t testing.TB, what string, want []byte) {
	t.Helper()
	if a.Status != http.StatusOK || a.Err != nil || !bytes.Equal(a.Body, want) {
		t.Errorf("%s: status %d, %d bytes of %d, %v; want 200 and every byte%s", what, a.Status, len(a.Body), len(want), a.Err, a.Says())
	}
}

// Spoiled fails the test if a ends as if it were whole: it must be an error, or be
// cut.
func (a Answer) Spoiled(t testing.TB, what string) {
	t.Helper()
	if a.Status < 500 && a.Err == nil {
		t.Errorf("%s: status %d and a clean end after %d bytes; want an error or an aborted body", what, a.Status, len(a.Body))
	}
}

// Is fails the test unless a has the status want.
func (a Answer) Is(t testing.TB, what string, want int) {
	t.Helper()
	if a.Status != want {
		t.Errorf("%s: status %d, want %d%s", what, a.Status, want, a.Says())
	}
}

// Says is what an error answer says, for a failure's message.
func (a Answer) Says() string {
	if a.Status < 400 || len(a.Body) > 2000 {
		return ""
	}
	return "; it says " + strings.TrimSpace(string(a.Body))
}

// Together calls do n times at once and waits for all.
func Together(n int, do func(i int)) {
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { do(i) })
	}
	wait.Wait()
}
