package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// blob is the content of the tests' blobs.
var blob = bytes.Repeat([]byte("a blob of some length\n"), 50_000)

var blobPath = "/v2/o/i/blobs/" + digest.FromBytes(blob).String()

// carrier serves blob and records over which connections.
type carrier struct {
	*httptest.Server
	mu    sync.Mutex
	conns map[string]string // protocol by address of the client
}

func newCarrier(t *testing.T, tls bool) *carrier {
	c := &carrier{conns: map[string]string{}}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.conns[r.RemoteAddr] = r.Proto
		c.mu.Unlock()
		w.Header().Set("ETag", `"x"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
	}))
	c.EnableHTTP2 = true
	if tls {
		c.StartTLS()
	} else {
		c.Start()
	}
	t.Cleanup(c.Close)
	return c
}

func (c *carrier) seen() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := map[string]int{}
	for _, proto := range c.conns {
		n[proto]++
	}
	return n
}

// must asks u and returns the response, which is closed when the test ends.
func must(t *testing.T, u *Upstream, r Request) *http.Response {
	t.Helper()
	resp, err := u.Do(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func separate(first string) Request {
	r := anonymous(blobPath)
	r.Separate = true
	r.Header.Set("Range", "bytes="+first+"-")
	return r
}

func TestSeparateRequestsHaveConnectionsOfTheirOwn(t *testing.T) {
	c := newCarrier(t, true)
	u := newUpstream(t, Config{URL: mustURL(c.URL), Registry: config.Registry{CA: writeCA(t, c.Server)}})
	for range 3 {
		must(t, u, anonymous(blobPath)).Body.Close()
	}
	var open []*http.Response
	for _, first := range []string{"0", "1", "2", "3"} {
		resp := must(t, u, separate(first))
		if resp.StatusCode != http.StatusPartialContent || resp.Header.Get("ETag") != `"x"` || resp.Header.Get("Content-Range") == "" {
			t.Errorf("status %d, %v", resp.StatusCode, resp.Header)
		}
		open = append(open, resp)
	}
	if got := c.seen(); got["HTTP/2.0"] != 1 || got["HTTP/1.1"] != 4 {
		t.Errorf("connections by protocol: %v", got)
	}
	for _, resp := range open {
		body, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.HasSuffix(blob, body) {
			t.Errorf("%d bytes, %v", len(body), err)
		}
		resp.Body.Close()
	}
	// What was read to its end is used again.
	must(t, u, separate("0"))
	if got := c.seen(); got["HTTP/1.1"] != 4 {
		t.Errorf("connections by protocol: %v", got)
	}
}

func TestConnectionsToOneHostAreBounded(t *testing.T) {
	c := newCarrier(t, false)
	// Two upstreams at one host, as two registries of one provider are.
	us := []*Upstream{newUpstream(t, Config{URL: mustURL(c.URL)}), newUpstream(t, Config{URL: mustURL(c.URL + "/other")})}
	var open []*http.Response
	for n := range maxCarriers {
		open = append(open, must(t, us[n%2], separate("0")))
	}
	for _, change := range []func(*Request){
		func(r *Request) { r.Separate = true },
		func(r *Request) { r.Ahead = true },
	} {
		r := anonymous(blobPath)
		change(&r)
		if _, err := us[0].Do(context.Background(), r); !errors.Is(err, ErrNoSlot) || !errors.As(err, new(*oci.Error)) {
			t.Errorf("more connections than %d: %v", maxCarriers, err)
		}
	}
	// What a client needs is asked for all the same: without sidemirror it would be.
	must(t, us[1], anonymous(blobPath)).Body.Close()
	must(t, us[0], anonymous("/v2/o/i/manifests/1"))
	head := anonymous(blobPath)
	head.Method = http.MethodHead
	must(t, us[0], head)
	open[0].Body.Close()
	open[0].Body.Close()
	must(t, us[0], separate("0"))
	if _, err := us[0].Do(context.Background(), separate("0")); !errors.Is(err, ErrNoSlot) {
		t.Errorf("closing one body twice freed two slots: %v", err)
	}
}

func TestSlotsAreFreedByWhateverEndsARequest(t *testing.T) {
	elsewhere := newCarrier(t, false)
	var status int
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if status == http.StatusFound {
			http.Redirect(w, r, elsewhere.URL, status)
			return
		}
		w.WriteHeader(status)
	})
	u := newUpstream(t, Config{URL: mustURL(s.URL)})
	for _, status = range []int{200, 206, 302, 401, 403, 404, 416, 429, 500, 503} {
		for range 2 * maxCarriers {
			if resp, err := u.Do(context.Background(), separate("0")); err == nil {
				resp.Body.Close()
			} else if errors.Is(err, ErrNoSlot) {
				t.Fatalf("%d: %v", status, err)
			}
		}
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for range 2 * maxCarriers {
		if _, err := u.Do(cancelled, separate("0")); errors.Is(err, ErrNoSlot) {
			t.Fatal("a request that was cancelled holds its slot")
		}
	}
	carriers.mu.Lock()
	defer carriers.mu.Unlock()
	for _, host := range []string{s.Listener.Addr().String(), elsewhere.Listener.Addr().String()} {
		if n := carriers.used[host]; n.all > 0 {
			t.Errorf("%s: %d slots are held by no request", host, n)
		}
	}
}

func TestASlotOfTheRedirectsHostIsTaken(t *testing.T) {
	store := newCarrier(t, false)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, store.URL, http.StatusFound) })
	u := newUpstream(t, Config{URL: mustURL(s.URL)})
	for range maxCarriers {
		must(t, u, separate("0"))
	}
	if _, err := u.Do(context.Background(), separate("0")); !errors.Is(err, ErrNoSlot) {
		t.Errorf("%d connections to the store, and then %v", maxCarriers, err)
	}
}

func TestSlotsAheadLeaveRoomForRequests(t *testing.T) {
	s := &slots{max: 4, ahead: 2}
	at := mustURL("https://registry.test")
	ahead, plain := Request{Ahead: true}, Request{}
	for n := range 3 {
		if _, err := s.take(ahead, at); (err == nil) != (n < 2) {
			t.Errorf("number %d: %v", n, err)
		}
	}
	if _, err := s.take(ahead, mustURL("https://other.test")); err != nil {
		t.Errorf("another host: %v", err)
	}
	for range 2 {
		if _, err := s.take(plain, mustURL("https://REGISTRY.test:443/x")); err != nil {
			t.Error(err)
		}
	}
}

// Slow clients may hold every slot for ever: a pull does not hang on them.
func TestTheFirstConnectionForABlobIsNeverRefused(t *testing.T) {
	s := &slots{max: 1, ahead: 1}
	at := mustURL("https://registry.test")
	var held []*slot
	for range 5 {
		got, err := s.take(Request{}, at)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, got)
	}
	if _, err := s.take(Request{Separate: true}, at); !errors.Is(err, ErrNoSlot) {
		t.Errorf("one more than needed: %v", err)
	}
	for _, h := range held {
		h.release()
		h.release()
	}
	if len(s.used) != 0 {
		t.Errorf("slots are left: %+v", s.used)
	}
}

func TestUntrustedCallersTakeNoSlotOfTrustedOnes(t *testing.T) {
	s := &slots{max: 2, ahead: 1}
	at := mustURL("https://registry.test")
	var held []*slot
	take := func(r Request) error {
		got, err := s.take(r, at)
		if err == nil {
			held = append(held, got)
		}
		return err
	}
	for range 5 {
		if err := take(Request{Untrusted: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := take(Request{Untrusted: true, Separate: true}); !errors.Is(err, ErrNoSlot) {
		t.Errorf("an untrusted caller has one more than needed: %v", err)
	}
	for _, r := range []Request{{Ahead: true}, {Separate: true}} {
		if err := take(r); err != nil {
			t.Errorf("slow untrusted callers take the connections of a trusted one: %v", err)
		}
	}
	if err := take(Request{Separate: true}); !errors.Is(err, ErrNoSlot) {
		t.Errorf("a trusted caller has more than there may be: %v", err)
	}
	for _, h := range held {
		h.release()
	}
	if len(s.used) != 0 {
		t.Errorf("slots are left: %+v", s.used)
	}
}

func TestSlotsHoldUnderManyRequestsAtOnce(t *testing.T) {
	s := &slots{max: 3, ahead: 1}
	at := mustURL("https://registry.test")
	var wait sync.WaitGroup
	for n := range 64 {
		wait.Go(func() {
			for range 50 {
				if got, err := s.take(Request{Separate: n%3 == 0, Ahead: n%5 == 0, Untrusted: n%2 == 0}, at); err == nil {
					got.release()
				}
			}
		})
	}
	wait.Wait()
	if len(s.used) != 0 {
		t.Errorf("slots are left: %+v", s.used)
	}
}

func TestARefusalOfAnotherConnectionConcernsNoOtherRequest(t *testing.T) {
	for name, refuse := range map[string]func(w http.ResponseWriter){
		"429": func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) },
		"reset": func(w http.ResponseWriter) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "" {
					refuse(w)
				}
			})
			r := &reach{}
			pool := Pool{newUpstream(t, Config{URL: mustURL(s.URL), Changed: r.changed})}
			if resp, err := pool[0].Do(context.Background(), separate("0")); err == nil {
				resp.Body.Close()
				t.Fatal("it was not refused")
			}
			resp, _, err := pool.Do(context.Background(), anonymous(blobPath), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if n, _ := r.last(); n > 0 {
				t.Error("the upstream counts as out of reach")
			}
		})
	}
}

// A server may limit the connections of a client, and say for how long: that must not keep the pull
// waiting which has one.
func TestARetryAfterToAnotherConnectionIsKeptByOtherConnectionsAlone(t *testing.T) {
	var asked atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			asked.Add(1)
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	u := newUpstream(t, Config{URL: mustURL(s.URL)})
	ahead := anonymous(blobPath)
	ahead.Ahead = true
	for _, r := range []Request{separate("0"), separate("0"), ahead} {
		if _, err := u.Do(context.Background(), r); !errors.Is(err, &oci.Error{Code: oci.TooManyRequests}) {
			t.Errorf("%v", err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("it was asked %d times within its Retry-After", n)
	}
	resp, err := u.Do(context.Background(), anonymous(blobPath))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func TestARetryAfterToARequestIsKeptByAll(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "" {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	u := newUpstream(t, Config{URL: mustURL(s.URL)})
	for _, r := range []Request{anonymous(blobPath), anonymous(blobPath), separate("0")} {
		if _, err := u.Do(context.Background(), r); !errors.Is(err, &oci.Error{Code: oci.TooManyRequests}) {
			t.Errorf("%v", err)
		}
	}
}

// An engine, which speaks HTTP/1.1, has a connection for each layer that it fetches. By HTTP/2 all
// of them would share the rate of one.
func TestBodiesOfAHostThatMultiplexesHaveConnectionsOfTheirOwn(t *testing.T) {
	c := newCarrier(t, true)
	u := newUpstream(t, Config{URL: mustURL(c.URL), Registry: config.Registry{CA: writeCA(t, c.Server)}})
	var open []*http.Response
	for range 2 * maxCarriers {
		open = append(open, must(t, u, anonymous(blobPath)))
	}
	if got := c.seen(); got["HTTP/2.0"] != 1 || got["HTTP/1.1"] != maxCarriers-1 {
		t.Errorf("connections by protocol while %d bodies come in: %v", len(open), got)
	}
	for _, resp := range open {
		body, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Equal(blob, body) {
			t.Errorf("%d bytes, %v", len(body), err)
		}
		resp.Body.Close()
	}
	// Alone, a body shares the connection that is there.
	for range 3 {
		must(t, u, anonymous(blobPath)).Body.Close()
	}
	if got := c.seen(); got["HTTP/2.0"] != 1 || got["HTTP/1.1"] != maxCarriers-1 {
		t.Errorf("connections by protocol in the end: %v", got)
	}
}
