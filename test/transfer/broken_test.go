package transfer

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// flipping sends a wrong bit at one place of the blob, whatever part is asked for.
func flipping(at int) answer {
	return func(_ *upstream, c *call) {
		c.header(nil)
		part := bytes.Clone(c.wanted())
		if at >= c.first && at <= c.last {
			part[at-c.first] ^= 1
		}
		c.body(part)
	}
}

// resetting breaks off at one place of the blob, whatever part is asked for.
func resetting(at int) answer {
	return func(_ *upstream, c *call) {
		c.header(nil)
		if at < c.first || at > c.last {
			c.body(c.wanted())
			return
		}
		c.body(c.blob.Bytes[c.first:at])
		c.cut()
	}
}

// What the client has is right so far, so that the second upstream can go on.
func TestASecondUpstreamGoesOnWhereTheFirstCannot(t *testing.T) {
	const middle = large / 2
	for what, by := range map[string]answer{
		"a reset in the middle, again and again":   resetting(middle),
		"a reset near the end, again and again":    resetting(large - 10),
		"a reset after the header":                 resetting(0),
		"a wrong last byte":                        flipping(large - 1),
		"404 to every range after a reset":         afterReset(http.StatusNotFound),
		"503 to every range after a reset":         afterReset(http.StatusServiceUnavailable),
		"403 to every range after a reset":         afterReset(http.StatusForbidden),
		"a wrong length after a reset":             afterReset(0),
		"the whole of another blob after a reset":  afterReset(http.StatusOK),
		"a range of another total after the reset": afterReset(http.StatusPartialContent),
	} {
		for _, cache := range []string{"", "none"} {
			t.Run(what+" cache="+cache, func(t *testing.T) {
				t.Parallel()
				first, second := newUpstream(t, 0, by, big), newUpstream(t, 0, right, big)
				r := start(t, func(h *harness.Options) {
					if cache != "" {
						h.Cache = cache
					}
				}, first, second)
				r.whole("the first client", big)
				calls := first.fetches()
				r.whole("the next client", big)
				// An upstream that fails in passing may be asked again.
				lasting := strings.Contains(what, "again and again") || strings.Contains(what, "wrong last")
				if again := first.fetches(); again != calls && (lasting || cache == "") {
					t.Errorf("the next client's pull asked the first upstream %d times more", again-calls)
				}
			})
		}
	}
}

// afterReset breaks the first answer off in the middle, and then responds with a status.
func afterReset(status int) answer {
	return func(_ *upstream, c *call) {
		switch {
		case c.number == 1:
			c.header(nil)
			c.body(c.blob.Bytes[:large/2])
			c.cut()
		case status == 0:
			c.last -= 5
			c.header(func(h http.Header) { h.Del("Content-Range") })
			c.body(c.wanted())
		case status == http.StatusOK:
			c.blob = other
			c.whole()
		case status == http.StatusPartialContent:
			c.header(func(h http.Header) {
				h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", c.first, c.last, large+1))
			})
			c.body(c.wanted())
		default:
			c.w.WriteHeader(status)
		}
	}
}

// The client has wrong bytes already: that pull is cut, and the next one is right.
func TestAPullAfterWrongBytesIsServedByTheNextUpstream(t *testing.T) {
	for _, at := range []int{0, 1000, large / 2} {
		for _, cache := range []string{"", "none"} {
			t.Run(fmt.Sprint(at, " cache=", cache), func(t *testing.T) {
				t.Parallel()
				first, second := newUpstream(t, 0, flipping(at), big), newUpstream(t, 0, right, big)
				r := start(t, func(h *harness.Options) {
					if cache != "" {
						h.Cache = cache
					}
				}, first, second)
				r.neverWrong("the first client", r.get(big), big)
				calls := first.fetches()
				r.whole("the next client", big)
				if again := first.fetches(); again != calls {
					t.Errorf("the next client's pull asked the first upstream %d times more", again-calls)
				}
			})
		}
	}
}

// Without another upstream the blob is asked for again each time: the upstream may be repaired.
func TestAnUpstreamThatIsRepairedServesTheBlobAgain(t *testing.T) {
	u := newUpstream(t, 0, resetting(large/2), big)
	r := start(t, nil, u)
	a := r.get(big)
	a.Spoiled(t, "while it breaks off")
	u.repair(right)
	r.whole("afterwards", big)
	r.keepsNothingWrong()
}

// A body that pauses for ever on one connection: a second one takes over.
func TestABodyThatStopsIsTakenOverByAnotherConnection(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	u := newUpstream(t, 0, func(_ *upstream, c *call) {
		c.header(nil)
		if c.number > 1 {
			c.body(c.wanted())
			return
		}
		c.body(c.blob.Bytes[:large/2])
		_ = http.NewResponseController(c.w).Flush()
		select {
		case <-release:
		case <-c.r.Context().Done():
		}
	}, big)
	start(t, nil, u).whole("the client", big)
}

// stores are hosts that a registry redirects to, with signed URLs each of which serves some
// requests.
func stores(t *testing.T, u *upstream, uses int) []string {
	t.Helper()
	used := newCounter()
	var urls []string
	for range 3 {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				t.Error("a store got the token")
			}
			if used.add(r.URL.Query().Get("signature")) > uses {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			right(u, newCall(w, r, u, big))
		}))
		// What the kernel holds of a connection that the client has closed counts as sent.
		s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetWriteBuffer(64 << 10)
			}
			return ctx
		}
		s.Start()
		t.Cleanup(s.Close)
		urls = append(urls, s.URL)
	}
	return urls
}

func TestSignedURLsThatExpireAndLeadElsewhereServeALargeBlob(t *testing.T) {
	for _, uses := range []int{1, 2, 1000} {
		t.Run(fmt.Sprint(uses), func(t *testing.T) {
			t.Parallel()
			var at []string
			u := newUpstream(t, slow, func(_ *upstream, c *call) {
				http.Redirect(c.w, c.r, fmt.Sprintf("%s/?signature=%d", at[c.number%len(at)], c.number), http.StatusTemporaryRedirect)
			}, big)
			at = stores(t, u, uses)
			r := start(t, nil, u)
			r.whole("the client", big)
			if sent := u.sent.Load(); sent > large*11/10 {
				t.Errorf("%d bytes were sent for a blob of %d", sent, large)
			}
			// One registry that redirects is asked for each URL, not for each range.
			if calls, _ := u.counts(); uses == 1000 && calls > 1 {
				t.Errorf("the registry was asked %d times", calls)
			}
		})
	}
}

// Layers are gzip themselves, and stores label them so.
func TestABlobWhoseEncodingIsWrongOrUnaskedIsServed(t *testing.T) {
	layer := quirky.NewImage(false, "encoded", 3<<20).Blobs[1]
	for _, cache := range []string{"", "none"} {
		for what, o := range map[string]quirky.Options{
			"compressed on the way": {Blobs: quirky.Blobs{Gzip: true}},
			"labelled": {Intercept: func(_ quirky.Part, w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodGet {
					w.Header().Set("Content-Encoding", "gzip")
				}
				return false
			}},
		} {
			t.Run(what+" cache="+cache, func(t *testing.T) {
				up := quirky.New(t, o)
				up.Add(repo, "v1", holding(layer))
				h := harness.Options{Registries: []harness.Registry{{Name: name, Upstreams: []string{up.URL()}}}, Cache: cache}
				r := &rig{harness.Start(t, h), t, h}
				r.whole("the first client", layer)
				r.whole("the next client", layer)
				a := r.Get(blobPath(layer), http.Header{"Range": {"bytes=1000-1999"}})
				if a.Status == http.StatusPartialContent && !bytes.Equal(a.Body, layer.Bytes[1000:2000]) {
					t.Errorf("a range: %d wrong bytes", len(a.Body))
				}
			})
		}
	}
}

func TestABlobThatMatchesNeitherWayIs502BeforeItsFirstByte(t *testing.T) {
	layer := quirky.NewImage(false, "encoded", 3<<20).Blobs[1]
	o := quirky.Options{Blobs: quirky.Blobs{Gzip: true, Fault: quirky.Fault{Kind: quirky.Flip, At: 1 << 20}}}
	up := quirky.New(t, o)
	up.Add(repo, "v1", holding(layer))
	s := harness.Start(t, harness.Options{Registries: []harness.Registry{{Name: name, Upstreams: []string{up.URL()}}}})
	s.Get(blobPath(layer), nil).Is(t, "a blob that is broken and compressed", http.StatusBadGateway)
}
