package daemon

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/daemon/sdnotify/sdnotifytest"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// fake is a service that responds with the hosts of docker.io in its configuration, so that a test
// sees which configuration is in force.
type fake struct {
	name    string
	handler http.HandlerFunc
	closed  chan struct{}
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.handler != nil && r.URL.Path == "/stream" {
		f.handler(w, r)
		return
	}
	_, _ = io.WriteString(w, f.name)
}

// Probe notifies systemd, so that a test sees what came first.
func (f *fake) Probe(ctx context.Context) {
	_ = sdnotify.Status(probed)
	<-ctx.Done()
}

func (f *fake) Close() { close(f.closed) }

const probed = "probed"

// running is a daemon in the test's own process. The test is its systemd.
type running struct {
	t      *testing.T
	file   string
	log    *syncBuffer
	told   sdnotifytest.Messages
	first  string // notification
	cancel context.CancelFunc
	ended  chan error
	stream http.HandlerFunc

	mu    sync.Mutex
	fakes []*fake
	fail  error // of the next build
}

func (r *running) build(c *config.Config, _ handover.Handover, _ []netip.AddrPort, _ *logrus.Logger) (service, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return nil, r.fail
	}
	f := &fake{name: strings.Join(c.Registry(oci.DockerHub).Hosts, ","), handler: r.stream, closed: make(chan struct{})}
	r.fakes = append(r.fakes, f)
	return f, nil
}

// allowPort has no objection to the high ports of tests.
func allowPort(netip.AddrPort) *problem.Problem { return nil }

// withProxy makes a daemon serve a real proxy.
func withProxy(d *daemon) {
	d.build = func(c *config.Config, found handover.Handover, at []netip.AddrPort, log *logrus.Logger) (service, error) {
		return d.caches.newService(c, found, at, "test", log)
	}
}

// begin starts a daemon on the file, and waits until it is ready.
func begin(t *testing.T, file string, stream http.HandlerFunc, change ...func(*daemon)) *running {
	t.Helper()
	r := &running{t: t, file: file, log: new(syncBuffer), told: sdnotifytest.Listen(t), ended: make(chan error, 1), stream: stream}
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	d := newDaemon(config.Source{Path: file}, r.log)
	d.build, d.checkPort = r.build, allowPort
	for _, f := range change {
		f(d)
	}
	go func() { r.ended <- d.run(ctx) }()
	select {
	case got := <-r.told:
		r.first = got
		if !strings.HasPrefix(got, "READY=1\n") {
			t.Errorf("the first notification is %q", got)
		}
	case err := <-r.ended:
		t.Fatalf("it ended with %v", err)
	}
	t.Cleanup(func() {
		r.cancel()
		if err := r.end(); err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	return r
}

// expect waits until systemd is notified of want.
func (r *running) expect(want string) {
	r.t.Helper()
	r.told.Wait(r.t, want, r.log.String)
}

// end waits until run has returned. It may be called again.
func (r *running) end() error {
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(15 * time.Second):
		return errors.New("it did not end")
	}
}

func (r *running) sighup() {
	r.t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) rewrite(text string) {
	r.t.Helper()
	replaceFile(r.t, r.file, text)
}

// replaceFile does what editors and package managers do: another file gets the name.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// named returns a configuration whose fake responds with name.
func named(name string, listen ...string) string {
	return fmt.Sprintf("listen = ['%s']\n[registry.'docker.io']\nhosts = [%q]\n", strings.Join(listen, "', '"), name)
}

func get(t *testing.T, addr string) (string, error) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + addr + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func wantAnswer(t *testing.T, addr, want string) {
	t.Helper()
	if got, err := get(t, addr); err != nil || got != want {
		t.Errorf("%s answers %q, %v; want %q", addr, got, err, want)
	}
}

// stream makes a request whose response lasts until release is closed. Its query tells one from
// another.
func stream(t *testing.T, addr string, query ...string) io.ReadCloser {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + "/stream?" + strings.Join(query, "&"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp.Body
}

func lasting(release <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begun ")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-release:
			_, _ = io.WriteString(w, "done")
		case <-r.Context().Done():
		}
	}
}

// waitFor calls so again and again until it is true.
func waitFor(t *testing.T, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen in 30 s")
		}
	}
}

func mustLoad(t *testing.T, text string, environ ...string) *config.Config {
	t.Helper()
	c, err := config.Load(writeConfig(t, text), environ)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keepAlive returns a connection over which one request was answered.
func keepAlive(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return c
}
