package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sirupsen/logrus"
)

func TestANameServerThatTheUnitDeniesIsTrouble(t *testing.T) {
	said := new(syncBuffer)
	asked := 0
	deny := func(addr netip.Addr) error {
		asked++
		if addr == netip.MustParseAddr("169.254.169.254") {
			return fmt.Errorf("write: %w", os.NewSyscallError("write", syscall.EPERM))
		}
		return errors.New("no route to host")
	}
	r := &resolver{file: filepath.Join(t.TempDir(), "resolv.conf"), reach: deny}
	log := logrus.New()
	log.SetOutput(said)
	if text := r.trouble(log); text != "" {
		t.Errorf("without a file: %s", text)
	}
	for _, x := range []struct {
		content string
		amiss   bool
	}{
		{"nameserver 127.0.0.53\n", false},
		{"# nameserver 169.254.169.254\nsearch x\nnameserver 8.8.8.8\n", false},
		{"search x\nnameserver   169.254.169.254\n", true},
		{"nameserver 169.254.1.1\nnameserver fe80::1%eth0\n", false}, // out of reach, but not by us
		{"nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 169.254.169.254\n", false},
		{"nameserver\nnameserver x\nnameserver 169.254.169.254 \n", true},
	} {
		replaceFile(t, r.file, x.content)
		text := r.trouble(log)
		if (text != "") != x.amiss || x.amiss && !strings.Contains(text, "IPAddressAllow=169.254.169.254") {
			t.Errorf("%q: %q", x.content, text)
		}
		before := asked
		if again := r.trouble(log); again != text || asked != before {
			t.Errorf("%q: asked again it says %q", x.content, again)
		}
	}
	if n := strings.Count(said.String(), "level=warning"); n != 2 {
		t.Errorf("%d warnings:\n%s", n, said)
	}
}

// That nobody listens is no denial, nor is it to be waited for.
func TestANameServerIsReachedByADatagram(t *testing.T) {
	if err := sendNothing(netip.MustParseAddr("127.0.0.1")); errors.Is(err, syscall.EPERM) {
		t.Error(err)
	}
}
