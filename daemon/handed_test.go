package daemon

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/sdnotify/sdnotifytest"
)

const handedOverChild = "DAEMON_TEST_HANDED_OVER"

// child is a daemon in a process of its own, since sockets are handed over as file descriptors
// from 3 on. The end of its standard input ends it.
func child() int {
	_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // between fork and exec systemd knows it; exec.Cmd does not
	d := newDaemon(config.Source{Path: os.Getenv(handedOverChild)}, os.Stderr)
	d.checkPort = allowPort
	d.build = func(*config.Config, handover.Handover, []netip.AddrPort, *logrus.Logger) (service, error) {
		return &fake{name: "child", handler: trickle, closed: make(chan struct{})}, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte() // its end is the test's
		cancel()
	}()
	if err := d.run(ctx); err != nil {
		return 1
	}
	return 0
}

// trickle responds with trickled, slowly.
func trickle(w http.ResponseWriter, _ *http.Request) {
	for part := range strings.SplitAfterSeq(trickled, " ") {
		_, _ = io.WriteString(w, part)
		_ = http.NewResponseController(w).Flush()
		time.Sleep(40 * time.Millisecond)
	}
}

const trickled = "a stream that is under way when the daemon is asked to end"

// held returns a listening socket as systemd holds it: open, but no process accepts.
func held(t *testing.T, at string) (f *os.File, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if f, err = l.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, l.Addr().String()
}

// handed is a running child.
type handed struct {
	*running
	cmd  *exec.Cmd
	stop io.Closer
}

// hand starts a child with the file and the sockets, and waits until it is ready.
func hand(t *testing.T, told sdnotifytest.Messages, file string, sockets ...*os.File) *handed {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), handedOverChild+"="+file, fmt.Sprintf("LISTEN_FDS=%d", len(sockets)))
	cmd.ExtraFiles = sockets
	h := &handed{running: &running{t: t, log: new(syncBuffer), told: told}, cmd: cmd}
	cmd.Stderr = h.log
	var err error
	if h.stop, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.expect("READY=1\n")
	return h
}

// leave ends the child and waits for it.
func (h *handed) leave() {
	h.t.Helper()
	_ = h.stop.Close()
	if err := h.cmd.Wait(); err != nil {
		h.t.Errorf("it ended with %v:\n%s", err, h.log)
	}
}

func TestSocketsOfSystemdReplaceTheDefaultAddresses(t *testing.T) {
	socket, addr := held(t, "127.0.0.1:0")
	h := hand(t, sdnotifytest.Listen(t), writeConfig(t, "[registry.'docker.io']\nhosts = ['x']\n"), socket)
	wantAnswer(t, addr, "child")
	h.leave()
	if log := h.log.String(); !strings.Contains(log, "["+addr+"]") {
		t.Errorf("it does not say that it serves %s:\n%s", addr, log)
	}
}

// Engines may be pointed at any address of listen, and nothing would respond there.
func TestListenThatSystemdDoesNotServeIsRefusedUntilItIsRepaired(t *testing.T) {
	socket, addr := held(t, "127.0.0.1:0")
	other := freeAddr(t)
	file := writeConfig(t, named("x", other, addr))
	h := hand(t, sdnotifytest.Listen(t), file, socket)
	if got, err := get(t, addr); err != nil || !strings.Contains(got, "no configuration that can be used") {
		t.Errorf("it does not refuse: %q, %v", got, err)
	}
	if got, err := get(t, other); err == nil {
		t.Errorf("listen is served: %q", got)
	}
	replaceFile(t, file, named("x", addr))
	h.expect("serving")
	wantAnswer(t, addr, "child")
	replaceFile(t, file, named("x", other))
	h.expect("not in force")
	wantAnswer(t, addr, "child")
	h.leave()
	if log := h.log.String(); !strings.Contains(log, "not at "+other) || !strings.Contains(log, "systemctl edit sidemirror.socket") {
		t.Errorf("it does not say that %s is not served, and what to do:\n%s", other, log)
	}
}

func TestAllSocketsOfSystemdAreServed(t *testing.T) {
	four, at4 := held(t, "127.0.0.1:0")
	six, at6 := held(t, "[::1]:0")
	told := sdnotifytest.Listen(t)
	h := hand(t, told, writeConfig(t, named("x", at4)), six, four)
	wantAnswer(t, at4, "child")
	wantAnswer(t, at6, "child")
	h.leave()
	if log := h.log.String(); !strings.Contains(log, "["+at4+" "+at6+"]") || strings.Contains(log, "systemd opens the sockets") {
		t.Errorf("it does not say that it serves %s and %s, or that something is missing:\n%s", at4, at6, log)
	}
}

func TestWatchdogAsksAtIPv6IfThatIsTheOnlySocket(t *testing.T) {
	socket, addr := held(t, "[::1]:0")
	told := sdnotifytest.Listen(t)
	t.Setenv("WATCHDOG_USEC", "600000")
	h := hand(t, told, writeConfig(t, named("x", addr)), socket)
	h.expect("WATCHDOG=1")
	h.expect("WATCHDOG=1")
	h.leave()
}

// However often systemd restarts the daemon, no request fails and no stream is cut, for engines
// that reuse their connections and for others.
func TestRestartWithSystemdsSocketLosesNoRequest(t *testing.T) {
	socket, addr := held(t, "127.0.0.1:0")
	told := sdnotifytest.Listen(t)
	file := writeConfig(t, named("x", addr))
	h := hand(t, told, file, socket)

	over := make(chan struct{})
	var engines sync.WaitGroup
	var requests atomic.Int64
	for i := range 4 {
		engines.Go(func() {
			keepAsking(t, &http.Transport{DisableKeepAlives: i%2 == 0}, "http://"+addr+"/", over, &requests)
		})
	}
	for range 6 {
		var streams sync.WaitGroup
		for range 3 {
			body := stream(t, addr)
			streams.Go(func() {
				if got, err := io.ReadAll(body); err != nil || string(got) != trickled {
					t.Errorf("a stream gave %q, %v", got, err)
				}
			})
		}
		h.leave()
		h = hand(t, told, file, socket)
		streams.Wait()
	}
	close(over)
	engines.Wait()
	h.leave()
	t.Logf("%d requests over 6 restarts", requests.Load())
	if requests.Load() < 100 {
		t.Errorf("only %d requests were made", requests.Load())
	}
}

// keepAsking is an engine that makes one request after the other until over.
func keepAsking(t *testing.T, transport *http.Transport, url string, over <-chan struct{}, requests *atomic.Int64) {
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	for {
		select {
		case <-over:
			return
		default:
		}
		resp, err := client.Get(url)
		if err != nil {
			t.Errorf("request %d failed: %v", requests.Load(), err)
			return
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(got) != "child" {
			t.Errorf("request %d was answered %q, %v", requests.Load(), got, err)
			return
		}
		requests.Add(1)
	}
}
