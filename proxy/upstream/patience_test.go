package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// lateServer sends its response header when release is called, and closes leave when the client of
// a request has left.
func lateServer(t *testing.T) (url string, release func(), left <-chan struct{}) {
	wait, gone := make(chan struct{}), make(chan struct{})
	release = sync.OnceFunc(func() { close(wait) })
	leave := sync.OnceFunc(func() { close(gone) })
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" { // a probe
			return
		}
		select {
		case <-wait:
		case <-r.Context().Done():
			leave()
		}
	})
	t.Cleanup(release)
	return s.URL, release, gone
}

func TestALateHeaderIsATimeoutForAnEngineThatCanFallBack(t *testing.T) {
	url, _, left := lateServer(t)
	u := newUpstream(t, Config{URL: mustURL(url), Registry: config.Registry{HeaderTimeout: 20 * time.Millisecond}})
	_, err := u.Do(context.Background(), anonymous(blobPath))
	if e := oci.AsError(err); err == nil || e.HTTPStatus() != http.StatusGatewayTimeout {
		t.Errorf("%v", err)
	}
	<-left // the request is over at the server too
}

func TestAClientWithoutAnotherWayWaitsForTheHeader(t *testing.T) {
	url, release, _ := lateServer(t)
	u := newUpstream(t, Config{URL: mustURL(url), Registry: config.Registry{HeaderTimeout: time.Millisecond}})
	r := anonymous(blobPath)
	r.HeaderTimeout = Unlimited
	time.AfterFunc(50*time.Millisecond, release) // fifty times as long
	if resp := must(t, u, r); resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestTheTimeForTheHeaderIsNotThatForTheConnectionOrTheBody(t *testing.T) {
	for name, c := range map[string]struct {
		connect, header, body time.Duration
		ok                    bool
	}{
		"all quick":         {0, 0, 0, true},
		"a slow connection": {time.Hour, time.Second, 0, true},
		"a late header":     {0, 26 * time.Second, 0, false},
		"a slow body":       {0, 24 * time.Second, time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := roundTripper(func(r *http.Request) (*http.Response, error) {
					time.Sleep(c.connect)
					httptrace.ContextClientTrace(r.Context()).GotConn(httptrace.GotConnInfo{})
					if err := sleep(r.Context(), c.header); err != nil {
						return nil, err
					}
					out, in := io.Pipe()
					go func() {
						err := sleep(r.Context(), c.body)
						_, _ = io.WriteString(in, "content")
						_ = in.CloseWithError(err)
					}()
					return &http.Response{Body: out}, nil
				})
				req := newRequest(t.Context(), http.MethodGet, mustURL("https://r.test"), nil, "")
				resp, err := awaitHeader(server, req, 25*time.Second)
				if err != nil {
					if c.ok || !isTimeout(err) {
						t.Error(err)
					}
					return
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if !c.ok || err != nil || string(body) != "content" {
					t.Errorf("%q, %v", body, err)
				}
			})
		})
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The first upstream is slow, the second is not: the engine must not have given up by then.
func TestAnotherUpstreamIsAskedInTime(t *testing.T) {
	url, _, _ := lateServer(t)
	var asked atomic.Int32
	second := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	slow := func() *Upstream {
		return newUpstream(t, Config{URL: mustURL(url), Registry: config.Registry{HeaderTimeout: time.Hour}, headerOfSeveral: 20 * time.Millisecond})
	}
	pool := Pool{slow(), slow(), newUpstream(t, Config{URL: mustURL(second.URL)})}
	resp, from, err := pool.Do(context.Background(), anonymous(blobPath), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if from != pool[2] || asked.Load() != 1 {
		t.Errorf("%s answered, the last was asked %d times", from.Name(), asked.Load())
	}
}

func TestHeaderTimeouts(t *testing.T) {
	u := newUpstream(t, Config{URL: mustURL("https://r.test"), Registry: config.Registry{HeaderTimeout: 25 * time.Second}})
	for name, c := range map[string]struct {
		r    Request
		want time.Duration
	}{
		"an engine that can fall back":          {Request{}, 25 * time.Second},
		"another upstream can be asked":         {Request{others: true}, 10 * time.Second},
		"one was asked already":                 {Request{elapsed: 10 * time.Second}, 15 * time.Second},
		"many were asked already":               {Request{elapsed: time.Minute}, 5 * time.Second},
		"no other way":                          {Request{Patient: true, HeaderTimeout: Unlimited}, Unlimited},
		"no other way, and another upstream":    {Request{Patient: true, HeaderTimeout: Unlimited, others: true}, 25 * time.Second},
		"a transfer that is resumed":            {Request{Patient: true, HeaderTimeout: BodyPause}, BodyPause},
		"a transfer that is resumed, and other": {Request{Patient: true, HeaderTimeout: BodyPause, others: true}, BodyPause},
	} {
		if got := u.headerTimeout(c.r); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestABodyMayPauseAsLongAsEnginesWait(t *testing.T) {
	for name, c := range map[string]struct {
		pause, reader time.Duration // of the upstream, and of the client between two reads
		ok            bool
	}{
		"containerd waits 5 minutes": {5*time.Minute - time.Second, 0, true},
		"a longer pause":             {5*time.Minute + time.Second, 0, false},
		// The time in which a client does not read is not the upstream's pause.
		"a client that reads slowly": {time.Minute, time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				out, in := io.Pipe()
				body := newPausingBody(out, BodyPause, cancel)
				defer body.Close()
				go func() {
					for _, part := range []string{"one ", "two ", "three"} {
						if err := sleep(ctx, c.pause); err != nil {
							_ = in.CloseWithError(err)
							return
						}
						_, _ = io.WriteString(in, part)
					}
					in.Close()
				}()
				var got []byte
				for buf := make([]byte, 8); ; time.Sleep(c.reader) {
					n, err := body.Read(buf)
					got = append(got, buf[:n]...)
					if err == nil {
						continue
					}
					if whole := errors.Is(err, io.EOF) && string(got) == "one two three"; whole != c.ok {
						t.Errorf("%q, %v", got, err)
					}
					return
				}
			})
		})
	}
}

func TestABodyThatPausesForEverIsGivenUp(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begin")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	resp := must(t, newUpstream(t, Config{URL: mustURL(s.URL), bodyPause: 20 * time.Millisecond}), anonymous(blobPath))
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%q is taken for the whole", body)
	}
}
