package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

func TestDeniedNameServerIsReported(t *testing.T) {
	said := new(syncBuffer)
	asked := 0
	deny := func(server netip.AddrPort) error {
		asked++
		if server == netip.MustParseAddrPort("169.254.169.254:53") {
			return fmt.Errorf("write: %w", os.NewSyscallError("write", syscall.EPERM))
		}
		return errors.New("no route to host")
	}
	r := &nameServers{file: filepath.Join(t.TempDir(), "resolv.conf"), reach: deny}
	log := logrus.New()
	log.SetOutput(said)
	if p := r.problem(log); p != nil {
		t.Errorf("without a file: %v", p)
	}
	for _, x := range []struct {
		content string
		faulty  bool
	}{
		{"nameserver 127.0.0.53\n", false},
		{"# nameserver 169.254.169.254\nsearch x\nnameserver 8.8.8.8\n", false},
		{"search x\nnameserver   169.254.169.254\n", true},
		{"nameserver 169.254.1.1\nnameserver fe80::1%eth0\n", false}, // out of reach, but not by us
		{"nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 169.254.169.254\n", false},
		{"nameserver\nnameserver x\nnameserver 169.254.169.254 \n", true},
	} {
		replaceFile(t, r.file, x.content)
		p := r.problem(log)
		if (p != nil) != x.faulty || x.faulty && !strings.Contains(p.Text, "name server 169.254.169.254") {
			t.Errorf("%q: %v", x.content, p)
		}
		before := asked
		if again := r.problem(log); again != p || asked != before {
			t.Errorf("%q: asked again it reports %v", x.content, again)
		}
	}
	if n := strings.Count(said.String(), "level=warning"); n != 2 {
		t.Errorf("%d warnings:\n%s", n, said)
	}
}

// Only sending shows what the unit denies.
func TestNameServerIsTriedWithADatagram(t *testing.T) {
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := sendNothing(server.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
		t.Fatal(err)
	}
	if err := server.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := server.ReadFrom(make([]byte, 16)); n != 0 || err != nil {
		t.Errorf("%d bytes came, %v", n, err)
	}
}
