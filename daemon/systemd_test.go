package daemon

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

func receive(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(15 * time.Second):
		t.Fatal("nothing came in 15 s")
	}
}

func TestOnlyListeningTCPSocketsAreTakenOver(t *testing.T) {
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	filer := func(s interface{ File() (*os.File, error) }, err error) *os.File {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	l, err := tcpListener(filer(tcp, nil))
	if err != nil || l.Addr().String() != tcp.Addr().String() {
		t.Errorf("a TCP socket: %v, %v", l, err)
	} else {
		_ = l.Close()
	}
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	if _, err := tcpListener(filer(unix, nil)); err == nil || !strings.Contains(err.Error(), "is a unix one, and engines speak TCP; use ListenStream=IP:PORT") {
		t.Errorf("a unix socket: %v", err)
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if _, err := tcpListener(filer(udp, nil)); err == nil || !strings.Contains(err.Error(), "does not listen for connections") {
		t.Errorf("a datagram socket: %v", err)
	}
}

const handedOverChild = "DAEMON_TEST_HANDED_OVER"

// child is what TestSocketsOfSystemdReplaceListen runs in a process of its own,
// since sockets are handed over as file descriptor 3.
func child() int {
	_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // between fork and exec systemd knows it; exec.Cmd does not
	c, err := Load(os.Getenv(handedOverChild), nil)
	if err != nil {
		return 2
	}
	d := &daemon{config: c, stderr: os.Stderr, build: func(*Config, []netip.AddrPort, *logrus.Logger) (service, error) {
		return &fake{name: "child", closed: make(chan struct{})}, nil
	}}
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

func TestSocketsOfSystemdReplaceListen(t *testing.T) {
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	f, err := tcp.File()
	if err != nil {
		t.Fatal(err)
	}
	addr := tcp.Addr().String()
	_ = tcp.Close() // f keeps the socket
	other := freeAddr(t)
	told := systemdSocket(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), handedOverChild+"="+writeConfig(t, named("x", other)), "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{f}
	var log syncBuffer
	cmd.Stderr = &log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	r := &running{t: t, log: &log, told: told}
	r.expect("READY=1\nSTATUS=serving 4 registries on " + addr)
	wantAnswer(t, addr, "child")
	if got, err := get(t, other); err == nil {
		t.Errorf("listen is served too: %q", got)
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if !strings.Contains(log.String(), "sockets at none of the addresses of listen") {
		t.Errorf("it does not say that the engines are told another address:\n%s", log.String())
	}
}

func TestTheWatchdogIsFedByAnswersAlone(t *testing.T) {
	told := systemdSocket(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked, failures := 0, 0
	watchdog(ctx, func(context.Context) error {
		asked++
		if asked == 4 {
			cancel()
			return nil
		}
		return errors.New("no answer")
	}, func(error) { failures++ })
	if got := <-told; got != "WATCHDOG=1" || failures != 3 {
		t.Errorf("told %q after %d failures", got, failures)
	}
	select {
	case got := <-told:
		t.Errorf("fed without an answer: %q", got)
	default:
	}
}

func TestTheWatchdogAsksThroughTheListener(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "300000")
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), nil)
	r.expect("WATCHDOG=1")
	r.expect("WATCHDOG=1")
	d := &daemon{log: logrus.New()}
	d.log.SetOutput(io.Discard)
	nobody := "http://" + freeAddr(t) + "/v2/"
	d.ownURL.Store(&nobody)
	if err := d.alive(t.Context()); err == nil {
		t.Error("it is alive though nobody listens")
	}
}
