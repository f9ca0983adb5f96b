package sockdiag

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// askEnv makes this test binary print who listens at an address, and nothing else.
const askEnv = "SIDEMIRROR_TEST_LISTENER"

func TestMain(m *testing.M) {
	if text := os.Getenv(askEnv); text != "" {
		uid, found, err := Listener(netip.MustParseAddrPort(text))
		fmt.Println(uid, found, err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// listen opens a listener that this test's user owns.
func listen(t *testing.T, network, address string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func at(host string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), port)
}

func TestListenerFindsTheSocketThatAConnectionWouldReach(t *testing.T) {
	own := listen(t, "tcp4", "127.0.0.1:0").Port()
	all4 := listen(t, "tcp4", "0.0.0.0:0").Port()
	both := listen(t, "tcp", "[::]:0").Port() // IPv4 too
	six := listen(t, "tcp6", "[::1]:0").Port()
	for name, test := range map[string]struct {
		addr netip.AddrPort
		want bool
	}{
		"its address":                 {at("127.0.0.1", own), true},
		"its address, mapped":         {at("::ffff:127.0.0.1", own), true},
		"another loopback address":    {at("127.0.0.2", own), false},
		"the other family":            {at("::1", own), false},
		"all of IPv4":                 {at("127.0.0.1", all4), true},
		"all of IPv4, not of IPv6":    {at("::1", all4), false},
		"all of both, by IPv4":        {at("127.0.0.1", both), true},
		"all of both, by IPv6":        {at("::1", both), true},
		"its IPv6 address":            {at("::1", six), true},
		"not by IPv4":                 {at("127.0.0.1", six), false},
		"a port that none listens at": {at("127.0.0.1", free(t)), false},
	} {
		t.Run(name, func(t *testing.T) {
			for source, look := range map[string]func(netip.AddrPort) (uint32, bool, error){
				"Listener":        Listener,
				"/proc/1/net":     func(a netip.AddrPort) (uint32, bool, error) { return uidOf(inTables("/proc/1/net", unmap(a))) },
				"/proc/self/net":  func(a netip.AddrPort) (uint32, bool, error) { return uidOf(inTables("/proc/self/net", unmap(a))) },
				"its own network": func(a netip.AddrPort) (uint32, bool, error) { return uidOf(here(unmap(a))) },
			} {
				uid, found, err := look(test.addr)
				if err != nil || found != test.want || found && uid != uint32(os.Getuid()) {
					t.Errorf("%s: user %d, %v, %v", source, uid, found, err)
				}
			}
		})
	}
	for _, addr := range []netip.AddrPort{{}, at("127.0.0.1", 0)} {
		if _, _, err := Listener(addr); err == nil {
			t.Errorf("no error for %v", addr)
		}
	}
}

func uidOf(s Socket, found bool, err error) (uint32, bool, error) { return s.UID, found, err }

// Whatever tells it, the inode is that of the descriptor.
func TestListenerSocketHasTheInodeOfTheDescriptor(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	want, addr := info.Sys().(*syscall.Stat_t).Ino, l.Addr().(*net.TCPAddr).AddrPort()
	for source, look := range map[string]func() (Socket, bool, error){
		"sock_diag": func() (Socket, bool, error) { return here(unmap(addr)) },
		"/proc":     func() (Socket, bool, error) { return inTables("/proc/self/net", unmap(addr)) },
		"its port":  func() (Socket, bool, error) { return AtPort(addr.Port()) },
	} {
		if s, found, err := look(); err != nil || !found || uint64(s.Inode) != want {
			t.Errorf("%s: %+v, %v, %v; want the inode %d", source, s, found, err, want)
		}
	}
}

func TestPortThatNoSocketListensAtIsFree(t *testing.T) {
	if s, found, err := AtPort(free(t)); found || err != nil {
		t.Errorf("%+v, %v, %v", s, found, err)
	}
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// free is a port that was free a moment ago.
func free(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// A connection to a port of ours is not its listener.
func TestListenerIsNotAConnectionOfThatPort(t *testing.T) {
	addr := listen(t, "tcp4", "127.0.0.1:0")
	conn, err := net.Dial("tcp4", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	if uid, found, err := Listener(local); found || err != nil {
		t.Errorf("user %d, %v, %v", uid, found, err)
	}
	if uid, found, err := Listener(addr); !found || err != nil {
		t.Errorf("user %d, %v, %v", uid, found, err)
	}
}

// askFrom asks in a process of another user, network or set of capabilities.
func askFrom(t *testing.T, addr netip.AddrPort, attr *syscall.SysProcAttr, wrap ...string) string {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(wrap, program)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), askEnv+"="+addr.String())
	cmd.SysProcAttr = attr
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, unix.EPERM) {
		t.Skip("only root may make namespaces and drop capabilities")
	}
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// The watching service has PrivateNetwork= and no capability.
func TestListenerOfTheHostIsSeenFromAnotherNetworkNamespace(t *testing.T) {
	port := listen(t, "tcp4", "127.0.0.1:0").Port()
	want := fmt.Sprintf("%d true <nil>", os.Getuid())
	isolated := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if got := askFrom(t, at("127.0.0.1", port), isolated); got != want {
		t.Errorf("got %q", got)
	}
	if got := askFrom(t, at("127.0.0.1", free(t)), isolated); got != "0 false <nil>" {
		t.Errorf("of a free port: %q", got)
	}
	powerless := []string{"setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"}
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Fatal("util-linux has setpriv, which this test needs")
	}
	if got := askFrom(t, at("127.0.0.1", port), isolated, powerless...); got != want {
		t.Errorf("without capabilities: %q", got)
	}
}

// The owner of the port tells an unprivileged user from root.
func TestListenerOfAnotherUserIsNamed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may become another user")
	}
	file, port := listenAs(t, 65534)
	defer file.Close()
	for _, attr := range []*syscall.SysProcAttr{{}, {Cloneflags: syscall.CLONE_NEWNET}} {
		if got := askFrom(t, at("127.0.0.1", port), attr); got != "65534 true <nil>" {
			t.Errorf("got %q", got)
		}
	}
}

// listenAs makes a listening socket that belongs to another user: a socket has the file system user
// id of the thread that makes it.
func listenAs(t *testing.T, uid int) (*os.File, uint16) {
	t.Helper()
	type made struct {
		fd  int
		err error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread() // and never given back: the thread ends with this function
		var m made
		if m.err = unix.Setfsuid(uid); m.err == nil {
			m.fd, m.err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		}
		done <- m
	}()
	m := <-done
	if m.err != nil {
		t.Fatal(m.err)
	}
	file := os.NewFile(uintptr(m.fd), "listener")
	if err := cmp.Or(unix.Bind(m.fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(m.fd, 1)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(m.fd)
	if err != nil {
		t.Fatal(err)
	}
	return file, uint16(name.(*unix.SockaddrInet4).Port)
}

const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0131 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0
   1: 0100007F:0132 0100007F:0131 01 00000000:00000000 00:00000000 00000000  1000        0 4243 1 0 20 4 30 10 -1
`

func TestMalformedTablesAreErrors(t *testing.T) {
	for name, text := range map[string]string{
		"half a line":      table + "   2: 0100007F:0131",
		"no address":       strings.ReplaceAll(table, "0100007F:0131 0000", "0100007F 0000"),
		"odd address":      strings.ReplaceAll(table, "0100007F:0131 0000", "0100007:0131 0000"),
		"address too long": strings.ReplaceAll(table, "0100007F:0131 0000", "0100007F00:0131 0000"),
		"user":             strings.ReplaceAll(table, "     0        0 4242", "    -1        0 4242"),
		"huge user":        strings.ReplaceAll(table, "     0        0 4242", " 4294967296        0 4242"),
		"one long line":    table + strings.Repeat("x", 1<<17),
	} {
		if err := eachListener(strings.NewReader(text), func(netip.AddrPort, Socket) {}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add([]byte(table))
	f.Add([]byte(strings.ReplaceAll(table, "0100007F", "00000000000000000000000001000000")))
	f.Fuzz(func(t *testing.T, text []byte) {
		_ = eachListener(bytes.NewReader(text), func(at netip.AddrPort, _ Socket) {
			if !at.Addr().IsValid() {
				t.Errorf("an address that is none in %q", text)
			}
		})
	})
}

func TestConnectionThatDoesNotExistIsNotFound(t *testing.T) {
	_, err := Connection(at("127.0.0.1", free(t)), at("127.0.0.1", 1))
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("error: %v", err)
	}
}
