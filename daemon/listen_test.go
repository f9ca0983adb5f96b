package daemon

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// answers reports whether a request over c is answered with 200; a connection that
// was closed is not.
func answers(c net.Conn) bool {
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == 200
}

func TestStrangersCannotTakeTheEnginesPlaces(t *testing.T) {
	var trusted atomic.Bool
	d := &door{trusted: func(net.Conn) bool { return trusted.Load() }, most: 4, strangers: 2}
	addr := serveOn(t, d, time.Minute, ok)

	strangers := []net.Conn{dial(t, addr), dial(t, addr)}
	for i, c := range strangers {
		if !answers(c) {
			t.Fatalf("stranger %d has no answer", i)
		}
	}
	if answers(dial(t, addr)) {
		t.Error("one stranger too many has an answer")
	}
	trusted.Store(true)
	engines := []net.Conn{dial(t, addr), dial(t, addr)}
	for i, c := range engines {
		if !answers(c) {
			t.Errorf("engine %d has no answer while strangers sit there", i)
		}
	}
	if answers(dial(t, addr)) {
		t.Error("one connection too many has an answer")
	}

	trusted.Store(false)
	_ = strangers[0].Close()
	// The server notices by itself; until then the place is taken.
	for deadline := time.Now().Add(10 * time.Second); !answers(dial(t, addr)); {
		if time.Now().After(deadline) {
			t.Fatal("the place of a connection that closed was not given back")
		}
	}
}

func TestIdleStrangersDoNotKeepATrustedUserOut(t *testing.T) {
	var uids atomic.Pointer[[]uint32]
	uids.Store(new([]uint32)) // nobody is trusted
	d := newDoor(func() []uint32 { return *uids.Load() })
	addr := serveOn(t, d, time.Minute, ok)
	var first net.Conn
	for i := range maxUntrusted + 50 {
		c := dial(t, addr)
		if i == 0 {
			first = c
		}
	}
	if !answers(first) {
		t.Error("the first stranger has no answer")
	}
	if n := d.untrusted.Load(); n > maxUntrusted {
		t.Errorf("%d strangers are let in, more than %d", n, maxUntrusted)
	}
	if answers(dial(t, addr)) {
		t.Error("a stranger beyond the limit has an answer")
	}
	uids.Store(&[]uint32{uint32(os.Getuid())})
	if !answers(dial(t, addr)) {
		t.Error("a trusted user, told by the kernel, has no answer")
	}
}

func TestATakenAddressNamesItsHolder(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		t.Run(at, func(t *testing.T) {
			l, err := net.Listen("tcp", at)
			if err != nil {
				t.Skipf("this host has no %s: %v", at, err)
			}
			defer l.Close()
			addr := netip.MustParseAddrPort(l.Addr().String())
			_, err = listenOn(t.Context(), addr)
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("(process %d)", os.Getpid())) {
				t.Errorf("got %v, want this process %d", err, os.Getpid())
			}
		})
	}
}

func TestAnAddressOfAnotherHostSaysSo(t *testing.T) {
	_, err := listenOn(t.Context(), netip.MustParseAddrPort("192.0.2.1:305"))
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
