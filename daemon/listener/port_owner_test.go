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

// Two lines of real tables of a 64-bit little-endian host.
const procTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0131 00000000:0000 0A 00000000:00000000 00:00000000 00000000   990        0 4242 1 0000000000000000 100 0 0 10 0
   1: 0100007F:13FC 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 4243 1 0000000000000000 20 4 30 10 -1
   2: 00000000000000000000000001000000:13FD 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4244 1 0000000000000000 100 0 0 10 0
`

func TestListeningSocketIsFoundByAddress(t *testing.T) {
	for _, tt := range []struct{ addr, inode string }{
		{"127.0.0.1:305", "4242"},
		{"0.0.0.0:305", "4242"},
		{"127.0.0.2:305", ""},  // another address
		{"127.0.0.1:5116", ""}, // connected, not listening
		{"[::1]:5117", "4244"},
		{"127.0.0.1:1", ""},
	} {
		s, found := listeningSocket(strings.NewReader(procTable), netip.MustParseAddrPort(tt.addr))
		if s.inode != tt.inode || found != (tt.inode != "") {
			t.Errorf("%s: got %+v, %v", tt.addr, s, found)
		}
	}
}

func FuzzListeningSocket(f *testing.F) {
	f.Add(procTable)
	f.Add("0: :0 :0 0A 0 0 0 0 0 0")
	f.Fuzz(func(t *testing.T, table string) {
		s, found := listeningSocket(strings.NewReader(table), netip.MustParseAddrPort("127.0.0.1:305"))
		if found && s.inode == "" {
			t.Error("a socket without an inode was found")
		}
	})
}
