package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"crypto/tls"
	"crypto/x509"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"slices"
	"syscall"
)

// reach records what an upstream reports about its reach.
type reach struct {
	mu       sync.Mutex
	reported []error
}

func (r *reach) changed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reported = append(r.reported, err)
}

// last returns how many reports there are, and the last one.
func (r *reach) last() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.reported) == 0 {
		return 0, nil
	}
	return len(r.reported), r.reported[len(r.reported)-1]
}

// closedPort returns an address of this host at which no process listens.
func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// listenAt serves h at address.
func listenAt(t *testing.T, address string, h http.Handler) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
}

var ok = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// ask sends a request for /v2/ to pool and returns its status.
func ask(ctx context.Context, pool Pool) (int, error) {
	resp, _, err := pool.Do(ctx, anonymous("/v2/"), nil)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

func TestTheFirstRequestAfterAnUpstreamComesUpIsServed(t *testing.T) {
	address := closedPort(t)
	r := &reach{}
	pool := Pool{newUpstream(t, Config{URL: mustURL("http://" + address), Changed: r.changed})}
	for range 10 {
		if _, err := ask(context.Background(), pool); !OutOfReach(err) {
			t.Fatal(err)
		}
	}
	if n, err := r.last(); n != 1 || err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%d reports, the last %v", n, err)
	}
	listenAt(t, address, ok)
	if status, err := ask(context.Background(), pool); err != nil || status != http.StatusOK {
		t.Errorf("%d, %v", status, err)
	}
	if n, err := r.last(); n != 2 || err != nil {
		t.Errorf("%d reports, the last %v", n, err)
	}
}

// failed makes h as it is after so many failures in a row, each of which took cost.
func failed(h *health, times int, cost time.Duration) {
	for range times {
		h.last = time.Time{} // as if it were long ago
		h.failed(errors.New("no route"), time.Now().Add(-cost), false)
	}
}

func TestTheBackOffIsInProportionToWhatTheFailureCost(t *testing.T) {
	for _, tt := range []struct {
		times    int
		cost     time.Duration
		from, to time.Duration
	}{
		{1, time.Millisecond, 0, 0},
		{30, time.Millisecond, 0, 0},
		{1, 5 * time.Second, 5 * time.Second, 6 * time.Second},
		{2, 5 * time.Second, 10 * time.Second, 11 * time.Second},
		{3, 5 * time.Second, 20 * time.Second, 22 * time.Second},
		{30, 5 * time.Second, time.Minute, time.Minute},
		{30, time.Second, 16 * time.Second, 18 * time.Second},
	} {
		h := &health{longest: longestBackoff}
		failed(h, tt.times, tt.cost)
		if got := h.until.Sub(h.last); got < tt.from || got > tt.to {
			t.Errorf("%d failures of %v: a back-off of %v, want %v to %v", tt.times, tt.cost, got, tt.from, tt.to)
		}
	}
}

func TestAnUpstreamInBackOffIsAskedOnlyByAPatientCaller(t *testing.T) {
	h := &health{longest: longestBackoff}
	failed(h, 1, time.Minute)
	if _, ok := h.admit(context.Background(), false); ok {
		t.Error("an impatient caller is admitted")
	}
	end, ok := h.admit(context.Background(), true)
	if !ok {
		t.Error("a patient caller is not admitted")
	}
	end()
}

func TestAChangeOfTheHostsAddressesEndsTheBackOff(t *testing.T) {
	h := &health{longest: longestBackoff}
	failed(h, 1, time.Minute)
	h.network = "192.0.2.1/24" // as it was before
	end, ok := h.admit(context.Background(), false)
	if !ok {
		t.Error("not admitted")
	}
	end()
}

func TestOneCallerAtATimeTriesAnUpstreamThatWasOutOfReach(t *testing.T) {
	h := &health{longest: longestBackoff}
	failed(h, 1, time.Millisecond)
	var trying, most atomic.Int32
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			end, ok := h.admit(context.Background(), false)
			if !ok {
				return
			}
			if n := trying.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Millisecond)
			trying.Add(-1)
			end()
		})
	}
	wait.Wait()
	if n := most.Load(); n != 1 {
		t.Errorf("%d at once, want 1", n)
	}
	end, ok := h.admit(context.Background(), false)
	if !ok {
		t.Error("the next caller is not admitted")
	}
	end()
}

func TestThoseWhoWaitForAnAttemptAreAdmittedWhenItSucceeds(t *testing.T) {
	h := &health{longest: longestBackoff}
	failed(h, 1, time.Millisecond)
	end, ok := h.admit(context.Background(), false)
	if !ok {
		t.Fatal("the first is not admitted")
	}
	var admitted atomic.Int32
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if _, ok := h.admit(context.Background(), false); ok {
				admitted.Add(1)
			}
		})
	}
	h.connected()
	end()
	wait.Wait()
	if n := admitted.Load(); n != 20 {
		t.Errorf("%d of 20 admitted", n)
	}
}

func TestFailuresAtOnceCountAsOne(t *testing.T) {
	h := &health{longest: longestBackoff}
	started := time.Now().Add(-time.Second)
	for range 50 {
		h.failed(errors.New("no route"), started, false)
	}
	if h.failures != 1 {
		t.Errorf("%d failures", h.failures)
	}
}

// slow answers /v2/ at once and keeps every other request waiting until release is closed.
func slow(t *testing.T, release chan struct{}) *httptest.Server {
	return serve(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
	})
}

func TestASlowRequestSaysNothingAboutTheUpstream(t *testing.T) {
	release := make(chan struct{})
	registry := slow(t, release)
	defer close(release)
	r := &reach{}
	u := newUpstream(t, Config{
		URL: mustURL(registry.URL), Registry: config.Registry{HeaderTimeout: time.Second}, Changed: r.changed,
	})
	_, err := u.Do(context.Background(), anonymous("/v2/o/i/manifests/slow"))
	var e *oci.Error
	if !errors.As(err, &e) || e.HTTPStatus() != http.StatusGatewayTimeout {
		t.Errorf("%v, want a 504", err)
	}
	u.background.Wait() // it was probed
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := u.Do(ctx, anonymous("/v2/o/i/manifests/slow")); err == nil {
		t.Error("no error")
	}
	if status, err := ask(context.Background(), Pool{u}); err != nil || status != http.StatusOK {
		t.Errorf("another request: %d, %v", status, err)
	}
	if n, err := r.last(); n != 0 {
		t.Errorf("%d reports, the last %v", n, err)
	}
}

func TestAnUpstreamThatAnswersNothingIsOutOfReachUntilItAnswers(t *testing.T) {
	release := make(chan struct{})
	registry := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	r := &reach{}
	u := newUpstream(t, Config{
		URL: mustURL(registry.URL), Registry: config.Registry{HeaderTimeout: 300 * time.Millisecond}, Changed: r.changed,
	})
	if _, err := ask(context.Background(), Pool{u}); err == nil {
		t.Fatal("no error")
	}
	u.background.Wait()
	if n, err := r.last(); n != 1 || err == nil || !u.health.isSilent() {
		t.Errorf("%d reports, the last %v", n, err)
	}
	// A connection alone is no sign of life.
	if _, err := ask(context.Background(), Pool{u}); err == nil || !u.health.isSilent() {
		t.Errorf("%v", err)
	}
	close(release)
	if status, err := ask(context.Background(), Pool{u}); err != nil || status != http.StatusOK {
		t.Errorf("%d, %v", status, err)
	}
	if n, err := r.last(); n != 2 || err != nil {
		t.Errorf("%d reports, the last %v", n, err)
	}
}

func TestAnUpstreamIsNotOutOfReachBecauseItsTokenServerIs(t *testing.T) {
	realm := closedPort(t)
	registry := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "private") {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+realm+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	r := &reach{}
	u := newUpstream(t, Config{URL: mustURL(registry.URL), Registry: config.Registry{Realms: []string{"http://" + realm}}, Changed: r.changed})
	for range 3 {
		if _, err := u.Do(context.Background(), anonymous("/v2/o/private/manifests/x")); !OutOfReach(err) {
			t.Fatal(err)
		}
	}
	if n, _ := r.last(); n != 0 || u.health.down {
		t.Error("the upstream counts as out of reach")
	}
	listenAt(t, realm, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"token":"t"}`)) }))
	resp, err := u.Do(context.Background(), anonymous("/v2/o/private/manifests/x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func TestARegistryWithoutATableIsLeftAloneForAMinuteAfterASlowFailure(t *testing.T) {
	u := newUpstream(t, Config{URL: mustURL("https://registry.example"), Unconfigured: true})
	admitted := func() bool {
		end, ok := u.health.admit(t.Context(), false)
		end()
		return ok
	}
	u.health.failed(errors.New("refused"), time.Now(), false)
	if !admitted() {
		t.Error("a refused connection costs the next caller nothing, and is not remembered")
	}
	began := time.Now().Add(-cheapFailure - time.Second)
	u.health.last = time.Time{}
	u.health.failed(errors.New("timeout"), began, false)
	if admitted() || u.health.until.Before(time.Now().Add(longestBackoff-10*time.Second)) {
		t.Errorf("it is asked again at %v", u.health.until)
	}
	u.health.connected()
	if !admitted() {
		t.Error("one that can be reached again is left alone")
	}
}

func TestAnotherReasonOfBeingOutOfReachIsReported(t *testing.T) {
	expired := func() error {
		return unreachable("r.example", &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired, Detail: time.Now().String()}})
	}
	refused := unreachable("r.example", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
	lookup := unreachable("r.example", &net.DNSError{Err: "refused", Name: "r.example"})
	var reported []error
	h := &health{longest: longestBackoff, changed: func(err error) { reported = append(reported, err) }}
	first := expired()
	for _, err := range []error{refused, refused, lookup, lookup, first, expired(), refused} {
		h.failed(err, time.Now(), false)
	}
	h.connected()
	want := []error{refused, lookup, first, refused, nil}
	if !slices.Equal(reported, want) {
		t.Errorf("reported are %v, want %v", reported, want)
	}
}
