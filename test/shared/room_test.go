package shared

import (
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// small makes a host keep 64 MiB.
func small(o *harness.Options) { o.Env = append(o.Env, "SIDEMIRROR_CACHE_MAX_SIZE=64MiB") }

func TestWhatWasUploadedMakesRoomForOtherContent(t *testing.T) {
	s := startFake(t)
	first, second := newBlob("uploaded", 30<<20), newBlob("needs its room", 50<<20)
	u := newUpstream(t, quirky.Options{}, map[string][]blob{repo: {first, second}})
	h := host(t, u.URL(), s, small)
	pull(t, h, first)
	eventually(t, "it is uploaded", func() bool { return s.has(first) })
	eventually(t, "the other one is stored", func() bool {
		before := u.requests()
		pull(t, h, second)
		return u.requests() == before
	})
}

func TestAStoreThatAnnouncesMoreThanItSendsEmptiesNoCache(t *testing.T) {
	s := startFaulty(t)
	first, second := newBlob("stays", 30<<20), newBlob("announced too long", 3<<20)
	u := newUpstream(t, quirky.Options{}, map[string][]blob{repo: {first, second}})
	h := host(t, u.URL(), s.store, small)
	pull(t, h, first)
	eventually(t, "it is uploaded", func() bool { return s.has(first) })
	announced := make(chan bool, 1)
	s.set(func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if !isBlob(r) {
			pass.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(63<<20))
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		_, _ = io.WriteString(w, "x")
		_ = http.NewResponseController(w).Flush() // the client may have left
		select {
		case announced <- true:
		default:
		}
		<-r.Context().Done()
	})
	pull(t, h, second)
	<-announced
	eventually(t, "the other one is uploaded", func() bool { return s.has(second) })
	before := u.requests()
	pull(t, h, first)
	if n := u.requests() - before; n != 0 {
		t.Errorf("what was stored has been removed for the size that the store announced: %d requests for it", n)
	}
}
