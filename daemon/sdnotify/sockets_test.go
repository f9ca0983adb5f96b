package sdnotify

import (
	"net"
	"os"
	"strings"
	"testing"
)

func TestOnlyListeningTCPSocketsAreAccepted(t *testing.T) {
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
	if _, err := tcpListener(filer(unix, nil)); err == nil || !strings.Contains(err.Error(), "is a unix socket, but engines use TCP; use ListenStream=IP:PORT") {
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
