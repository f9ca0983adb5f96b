package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// clock is a time that passes only when a test says so.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// contest is a mirror before a registry. What each of them takes passes by a clock of its own, since they
// may be asked at once.
type contest struct {
	clock, atHome clock
	mirror, home  *mirror
	pool          Pool
	seen          skips
}

// newContest makes both respond after some time, the mirror to its n-th request.
func newContest(t *testing.T, late func(r *http.Request, n int) time.Duration, home time.Duration) *contest {
	c := &contest{clock: clock{now: time.Unix(1e9, 0)}, atHome: clock{now: time.Unix(1e9, 0)}}
	n := 0
	c.mirror = newMirror(t, func(w http.ResponseWriter, r *http.Request) {
		c.mirror.mu.Lock()
		n++
		d := late(r, n)
		c.mirror.mu.Unlock()
		c.clock.pass(d)
		w.WriteHeader(http.StatusOK)
	})
	c.home = newMirror(t, func(http.ResponseWriter, *http.Request) { c.atHome.pass(home) })
	for i, m := range []*mirror{c.mirror, c.home} {
		config := Config{URL: mustURL(m.URL), now: c.atHome.time}
		if i == 0 {
			config.now, config.SkipChanged = c.clock.time, c.seen.add
		}
		u := newUpstream(t, config)
		u.pace.base = time.Hour
		c.pool = append(c.pool, u)
	}
	return c
}

// ask asks for a path, and waits until a comparison that begins with it is over.
func (c *contest) ask(t *testing.T, path string) *Upstream {
	t.Helper()
	resp, u, err := c.pool.Do(t.Context(), anonymous(path), nil)
	if err != nil {
		t.Fatal(err)
	}
	drain(resp)
	c.settle(t)
	return u
}

func (c *contest) settle(t *testing.T) {
	t.Helper()
	p := &c.pool[0].pace
	waitUntil(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, s := range p.compared {
			if s.running {
				return false
			}
		}
		return !p.trying
	})
}

func always(d time.Duration) func(*http.Request, int) time.Duration {
	return func(*http.Request, int) time.Duration { return d }
}

func TestAMirrorThatIsLateIsSkippedAfterOneRequest(t *testing.T) {
	for _, path := range []string{manifestPath, blobPath} {
		c := newContest(t, always(300*time.Millisecond), 5*time.Millisecond)
		if u := c.ask(t, path); u != c.pool[0] {
			t.Fatalf("%s responds at first", u.Host())
		}
		if s := c.seen.list(); len(s) != 1 || !strings.Contains(s[0].Error(), "it takes 300ms to respond, and "+c.pool[1].Host()+" takes 5ms") {
			t.Fatalf("%s: it reported %v", path, s)
		}
		mirror, home := len(c.mirror.requests()), len(c.home.requests())
		if mirror > 1+tooLate || home > rivalRounds {
			t.Errorf("%s: the comparison took %d and %d requests", path, mirror, home)
		}
		for range 20 {
			if u := c.ask(t, path); u != c.pool[1] {
				t.Fatalf("%s responds after that", u.Host())
			}
		}
		if asked := len(c.mirror.requests()); asked != mirror {
			t.Errorf("%s: the mirror was asked %d times after that", path, asked-mirror)
		}
	}
}

func TestAMirrorThatIsLateEachOtherTimeIsSkippedAndStaysSo(t *testing.T) {
	c := newContest(t, func(_ *http.Request, n int) time.Duration { return time.Duration(n%2) * 300 * time.Millisecond }, 5*time.Millisecond)
	c.ask(t, manifestPath)
	if c.pool[0].pace.skipped() != skipSlow {
		t.Fatal("it is not skipped")
	}
	for range 4 {
		c.pool[0].pace.makeDue()
		c.ask(t, manifestPath)
		c.settle(t)
		if c.pool[0].pace.skipped() != skipSlow {
			t.Fatal("it is skipped no more")
		}
	}
}

func TestOneLateResponseIsNoReasonToSkipAMirror(t *testing.T) {
	c := newContest(t, func(_ *http.Request, n int) time.Duration {
		return map[bool]time.Duration{true: 300 * time.Millisecond}[n == 1 || n > 6]
	}, 5*time.Millisecond)
	c.ask(t, manifestPath)
	if c.pool[0].pace.skipped() != skipNot {
		t.Fatalf("it is skipped: %v", c.seen.list())
	}
	// It is not compared at each further late response.
	asked := len(c.home.requests())
	for range 3 {
		c.ask(t, manifestPath)
	}
	if again := len(c.home.requests()) - asked; again > mostHedges {
		t.Errorf("the registry was asked %d times", again)
	}
}

func TestAMirrorIsNotSkippedForAnUpstreamThatIsAsSlowOrFailsOrLacksWhatIsAskedFor(t *testing.T) {
	for name, home := range map[string]http.HandlerFunc{
		"as slow": nil, "lacks it": status(404), "refuses": status(401), "fails": status(503),
	} {
		t.Run(name, func(t *testing.T) {
			c := newContest(t, always(300*time.Millisecond), 250*time.Millisecond)
			if home != nil {
				c.home.set(home)
			}
			for range 3 {
				if u := c.ask(t, manifestPath); u != c.pool[0] {
					t.Errorf("%s responds", u.Host())
				}
			}
			if s := c.seen.list(); len(s) != 0 {
				t.Errorf("it reported %v", s)
			}
			if asked := len(c.home.requests()); asked > rivalRounds+mostHedges {
				t.Errorf("the registry was asked %d times", asked)
			}
		})
	}
}

func TestAMirrorThatIsLateForBlobsIsTriedWithABlobAgain(t *testing.T) {
	c := newContest(t, func(r *http.Request, _ int) time.Duration {
		return map[bool]time.Duration{true: 300 * time.Millisecond}[strings.Contains(r.URL.Path, "/blobs/")]
	}, 5*time.Millisecond)
	c.ask(t, manifestPath)
	if c.pool[0].pace.skipped() != skipNot {
		t.Fatal("it is skipped for a manifest")
	}
	c.ask(t, blobPath)
	if c.pool[0].pace.skipped() != skipSlow {
		t.Fatal("it is not skipped for a blob")
	}
	asked := len(c.mirror.requests())
	c.pool[0].pace.makeDue()
	c.ask(t, manifestPath)
	if again := len(c.mirror.requests()); again != asked {
		t.Errorf("it is tried by %q", c.mirror.requests()[asked:])
	}
	c.ask(t, blobPath)
	waitUntil(t, func() bool { return len(c.mirror.requests()) > asked })
	c.settle(t)
	if c.pool[0].pace.skipped() != skipSlow {
		t.Error("it is skipped no more although it is late")
	}
	c.mirror.set(nil)
	c.pool[0].pace.makeDue()
	c.ask(t, blobPath)
	c.settle(t)
	if c.pool[0].pace.skipped() != skipNot {
		t.Error("it is skipped although it is late no more")
	}
}

// trickle makes the mirror send the beginning of a blob, and more for each value from next.
func (c *contest) trickle(next chan int) {
	c.mirror.set(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(1<<20))
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		for {
			select {
			case n := <-next:
				_, _ = w.Write(make([]byte, n))
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
}

// read opens a blob at the mirror and reads it in the background.
func (c *contest) read(t *testing.T) (body io.ReadCloser, ended chan error) {
	t.Helper()
	resp, u, err := c.pool.Do(t.Context(), anonymous(blobPath), nil)
	if err != nil || u != c.pool[0] {
		t.Fatalf("%v, %v", u, err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	ended = make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, resp.Body)
		ended <- err
	}()
	waitUntil(t, c.pool[0].pace.meter.isRead)
	return resp.Body, ended
}

// isRead reports whether bytes are waited for.
func (m *meter) isRead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reading > 0
}

// has reports whether so many bytes have come.
func (m *meter) has(n int64) func() bool {
	return func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.bytes >= n
	}
}

func TestABodyThatTricklesOrStallsEndsIfTheNextUpstreamIsFaster(t *testing.T) {
	for _, sent := range []int{0, 25_000} {
		c := newContest(t, always(0), 10*time.Millisecond)
		c.home.set(func(w http.ResponseWriter, _ *http.Request) {
			c.atHome.pass(10 * time.Millisecond)
			_, _ = w.Write(make([]byte, sampleSize))
		})
		next := make(chan int)
		c.trickle(next)
		m := &c.pool[0].pace.meter
		m.ticking = true // the test looks at it itself
		_, ended := c.read(t)
		if sent > 0 {
			next <- sent
			waitUntil(t, m.has(int64(sent)))
		}
		waitUntil(t, m.isRead)
		c.clock.pass(window)
		c.pool[0].look()
		var why *SkippedError
		if err := <-ended; !errors.As(err, &why) || why.OtherRate == 0 || why.Rate > 60_000 {
			t.Fatalf("after %d bytes: %v", sent, err)
		}
		if rate, other := why.Outpaced(); rate != why.Rate || other != why.OtherRate || !strings.Contains(why.Error(), c.pool[1].Host()+" sends 1") {
			t.Errorf("%v", why)
		}
		c.settle(t)
		if u := c.ask(t, blobPath); u != c.pool[1] || c.pool[0].pace.skipped() != skipThin {
			t.Errorf("after that %s responds", u.Host())
		}
		for _, r := range c.home.requests() {
			if !strings.HasPrefix(r, "GET "+blobPath) {
				t.Errorf("the registry was asked %s", r)
			}
		}
	}
}

func TestABodyThatTricklesGoesOnIfTheNextUpstreamIsNoFaster(t *testing.T) {
	small := bytes.Repeat([]byte("x"), leastSample-1)
	for name, home := range map[string]func(c *contest, w http.ResponseWriter){
		"it sends as little": func(c *contest, w http.ResponseWriter) {
			c.atHome.pass(20 * time.Second)
			_, _ = w.Write(make([]byte, sampleSize))
		},
		"it lacks the blob":     func(_ *contest, w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
		"the blob is too small": func(_ *contest, w http.ResponseWriter) { _, _ = w.Write(small) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newContest(t, always(0), 0)
			c.home.set(func(w http.ResponseWriter, _ *http.Request) { home(c, w) })
			next := make(chan int)
			c.trickle(next)
			m := &c.pool[0].pace.meter
			m.ticking = true
			_, ended := c.read(t)
			next <- 25_000
			waitUntil(t, m.has(25_000))
			waitUntil(t, m.isRead)
			c.clock.pass(window)
			c.pool[0].look()
			waitUntil(t, func() bool { return len(c.home.requests()) > 0 })
			c.settle(t)
			if c.pool[0].pace.skipped() != skipNot {
				t.Errorf("it is skipped: %v", c.seen.list())
			}
			next <- 1<<20 - 25_000
			if err := <-ended; err != nil {
				t.Errorf("the body ends with %v", err)
			}
		})
	}
}

func TestTimeInWhichNoReaderWaitsForBytesDoesNotCount(t *testing.T) {
	var m meter
	m.ticking = true
	m.open = []*meteredBody{{}}
	c := clock{now: time.Unix(1e9, 0)}
	for range 10 { // a client that reads slowly what comes at once
		m.begin(c.time(), nil)
		c.pass(time.Millisecond)
		m.end(c.time(), 1000)
		c.pass(time.Second)
	}
	if rate, _, ok := m.rate(c.time(), nil); ok {
		t.Errorf("it sends %.0f bytes a second", rate)
	}
	// Bytes of several bodies are one rate: they share a line.
	m = meter{ticking: true, open: []*meteredBody{{}}}
	m.begin(c.time(), nil)
	m.begin(c.time(), nil)
	c.pass(time.Second)
	m.end(c.time(), 1000)
	m.end(c.time(), 1000)
	if rate, _, ok := m.rate(c.time(), nil); !ok || rate != 2000 {
		t.Errorf("they send %.0f bytes a second, %t", rate, ok)
	}
}

func TestAnUpstreamIsComparedTheLaterTheOftenerItWasAsGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		if !p.compare(ofBytes) || p.compare(ofBytes) || !p.compare(subject(ofBlob)) {
			t.Fatal("each subject is compared once at a time")
		}
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			p.settle(ofBytes, asGood)
			time.Sleep(want*time.Second - 1)
			if p.compare(ofBytes) {
				t.Fatalf("it is compared sooner than after %d s", want)
			}
			time.Sleep(time.Nanosecond)
			if !p.compare(ofBytes) {
				t.Fatalf("it is not compared after %d s", want)
			}
		}
		p.settle(ofBytes, undecided)
		time.Sleep(firstTruce)
		if !p.compare(ofBytes) {
			t.Error("a comparison that said nothing is not made again soon")
		}
	})
}
