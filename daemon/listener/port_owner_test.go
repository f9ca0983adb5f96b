package listener

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func TestOpenNamesTheOwnerOfATakenAddress(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		t.Run(at, func(t *testing.T) {
			l, err := net.Listen("tcp", at)
			if err != nil {
				t.Skipf("this host has no %s: %v", at, err)
			}
			defer l.Close()
			addr := netip.MustParseAddrPort(l.Addr().String())
			_, err = Open(t.Context(), addr)
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("(process %d)", os.Getpid())) {
				t.Errorf("got %v, want this process %d", err, os.Getpid())
			}
		})
	}
}

func TestOpenNamesAnAddressThatTheHostDoesNotHave(t *testing.T) {
	_, err := Open(t.Context(), netip.MustParseAddrPort("192.0.2.1:305"))
	if err == nil || !strings.Contains(err.Error(), "this host has no such address") {
		t.Errorf("got %v", err)
	}
}

func TestOwnerOfAPortIsFoundAtAnyOfItsAddresses(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	want := fmt.Sprintf("(process %d)", os.Getpid())
	for addr, taken := range map[string]bool{"[::]": true, "0.0.0.0": true, "127.0.0.1": true, "127.0.0.2": false} {
		at := netip.MustParseAddrPort(fmt.Sprintf("%s:%d", addr, port))
		if by := TakenBy(at); strings.HasSuffix(by, want) != taken || !taken && by != "" {
			t.Errorf("%v is taken %q", at, by)
		}
	}
}
