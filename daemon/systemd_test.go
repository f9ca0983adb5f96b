package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
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
