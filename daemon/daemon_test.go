package daemon

import (
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
)

// fake is a service that answers with what its configuration calls hosts of
// docker.io, so that a test sees which configuration is in force.
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
func (f *fake) Probe(ctx context.Context) { <-ctx.Done() }
func (f *fake) Close()                    { close(f.closed) }

// running is a daemon in the test's own process, its systemd being the test.
type running struct {
	t      *testing.T
	file   string
	log    *syncBuffer
	told   chan string // what systemd is told
	cancel context.CancelFunc
	ended  chan error
	stream http.HandlerFunc

	mu    sync.Mutex
	fakes []*fake
	fail  error // of the next build
}

func (r *running) build(c *Config, _ []netip.AddrPort, _ *logrus.Logger) (service, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return nil, r.fail
	}
	f := &fake{name: strings.Join(c.registry(dockerHub).Hosts, ","), handler: r.stream, closed: make(chan struct{})}
	r.fakes = append(r.fakes, f)
	return f, nil
}

// begin starts a daemon on the file, and waits until it is ready.
func begin(t *testing.T, file string, stream http.HandlerFunc) *running {
	t.Helper()
	r := &running{t: t, file: file, log: new(syncBuffer), told: systemdSocket(t), ended: make(chan error, 1), stream: stream}
	c, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	d := &daemon{config: c, stderr: r.log, build: r.build}
	go func() { r.ended <- d.run(ctx) }()
	r.expect("READY=1")
	t.Cleanup(func() {
		r.cancel()
		if err := r.end(); err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	return r
}

// systemdSocket is a NOTIFY_SOCKET.
func systemdSocket(t *testing.T) chan string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // t.TempDir is too long for sun_path
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	told, done := make(chan string, 1000), make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 64<<10); ; {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			told <- string(b[:n])
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
		_ = os.RemoveAll(dir)
	})
	return told
}

// expect waits until systemd is told something with want in it; each message is
// taken to end with a newline.
func (r *running) expect(want string) {
	r.t.Helper()
	timeout := time.After(15 * time.Second)
	for {
		select {
		case got := <-r.told:
			if strings.Contains(got+"\n", want) {
				return
			}
		case <-timeout:
			r.t.Fatalf("systemd was not told %q; log:\n%s", want, r.log)
		}
	}
}

// end waits for run's return; it may be asked again.
func (r *running) end() error {
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(15 * time.Second):
		return errors.New("not at all")
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

// replaceFile is what editors and package managers do: another file gets the name.
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

// named is a configuration whose fake answers with name.
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

// stream is a request whose answer lasts until release is closed.
func stream(t *testing.T, addr string) io.ReadCloser {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + "/stream")
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

func TestStreamsFinishWhenTheDaemonStops(t *testing.T) {
	release := make(chan struct{})
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), lasting(release))
	body := stream(t, addr)
	r.cancel()
	r.expect("STOPPING=1")
	// The listener closes at once, though the notification comes before it.
	waitFor(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(release)
	if got, err := io.ReadAll(body); err != nil || string(got) != "begun done" {
		t.Errorf("the stream gave %q, %v", got, err)
	}
	if err := r.end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	<-r.fakes[0].closed
}

func TestStreamsAreCutWhenTheTimeIsUp(t *testing.T) {
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, "shutdown_timeout = '50ms'\n"+named("one", addr)), lasting(nil))
	body := stream(t, addr)
	r.cancel()
	if got, err := io.ReadAll(body); err == nil {
		t.Errorf("the stream ended cleanly with %q, as if that were all", got)
	}
	if err := r.end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestAReloadLetsStreamsFinishOnTheOldOne(t *testing.T) {
	release := make(chan struct{})
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), lasting(release))
	body := stream(t, addr)
	r.rewrite(named("two", addr))
	r.sighup()
	r.expect("RELOADING=1\nMONOTONIC_USEC=")
	r.expect("READY=1")
	wantAnswer(t, addr, "two")
	select {
	case <-r.fakes[0].closed:
		t.Error("the old one was closed under its stream")
	default:
	}
	close(release)
	if got, err := io.ReadAll(body); err != nil || string(got) != "begun done" {
		t.Errorf("the stream gave %q, %v", got, err)
	}
	<-r.fakes[0].closed
}

func TestABadFileKeepsTheOldConfiguration(t *testing.T) {
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), nil)
	r.rewrite(named("two", addr) + "hosst = []\n")
	r.sighup()
	r.expect(`unknown key "hosst"; did you mean "hosts"?`)
	wantAnswer(t, addr, "one")
	if log := r.log.String(); !strings.Contains(log, "config.toml:4:1") || !strings.Contains(log, "level=error") {
		t.Errorf("the log does not say where:\n%s", log)
	}
	r.rewrite(named("three", addr))
	r.sighup()
	r.expect("READY=1\nSTATUS=serving 4 registries on " + addr + "\n")
	wantAnswer(t, addr, "three")
}

func TestAProxyThatCannotBeMadeKeepsTheOldConfiguration(t *testing.T) {
	addr, other := freeAddr(t), freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), nil)
	r.mu.Lock()
	r.fail = errors.New("no such certificate")
	r.mu.Unlock()
	r.rewrite(named("two", other))
	r.sighup()
	r.expect("the new configuration is not used: no such certificate")
	wantAnswer(t, addr, "one")
	if _, err := get(t, other); err == nil {
		t.Error("the new address is served nevertheless")
	}
}

func TestAChangedListenMovesTheDaemon(t *testing.T) {
	first, second := freeAddr(t), freeAddr(t)
	r := begin(t, writeConfig(t, named("one", first)), nil)
	r.rewrite(named("two", first, second))
	r.sighup()
	r.expect(second)
	wantAnswer(t, first, "two")
	wantAnswer(t, second, "two")
	r.rewrite(named("three", second))
	r.sighup()
	r.expect("READY=1\nSTATUS=serving 4 registries on " + second)
	wantAnswer(t, second, "three")
	if got, err := get(t, first); err == nil {
		t.Errorf("the old address still answers %q", got)
	}
}

func TestATakenListenKeepsTheOldConfiguration(t *testing.T) {
	addr, free := freeAddr(t), freeAddr(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := begin(t, writeConfig(t, named("one", addr)), nil)
	r.rewrite(named("two", free, taken.Addr().String()))
	r.sighup()
	r.expect("the address is taken by")
	wantAnswer(t, addr, "one")
	if _, err := get(t, free); err == nil {
		t.Error("one of the new addresses is served")
	}
}

func TestALogLevelIsReloaded(t *testing.T) {
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)+"[log]\nlevel = 'error'\n"), nil)
	if log := r.log.String(); log != "" {
		t.Errorf("at error it logged %s", log)
	}
	r.rewrite(named("one", addr) + "[log]\nformat = 'json'\n")
	r.sighup()
	r.expect("READY=1")
	if log := r.log.String(); !strings.HasPrefix(log, `{"addresses":`) {
		t.Errorf("after the reload it logged %s", log)
	}
}

func TestATakenAddressEndsTheStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	c := mustLoad(t, named("one", freeAddr(t), taken.Addr().String()))
	d := &daemon{config: c, stderr: io.Discard, build: func(*Config, []netip.AddrPort, *logrus.Logger) (service, error) {
		t.Error("a proxy was made nevertheless")
		return nil, nil
	}}
	if err := d.run(t.Context()); err == nil || !strings.Contains(err.Error(), "the address is taken by") {
		t.Errorf("got %v", err)
	}
}

// waitFor asks again and again until so, and gives up in the end.
func waitFor(t *testing.T, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !so(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen in 15 s")
		}
	}
}
