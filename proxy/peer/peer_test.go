package peer

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/sockdiag"
	"github.com/sidemirror/sidemirror/proxy/peer/cgroup"
)

// dialEnv makes the test binary a client that runs as another user: it connects
// to the address, writes a line on stdout, and leaves when its stdin ends.
const dialEnv = "PEER_TEST_DIAL"

func TestMain(m *testing.M) {
	if addr := os.Getenv(dialEnv); addr != "" {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("connected")
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = conn.Close()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func listen(t *testing.T, network, addr string) *net.TCPListener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

func accept(t *testing.T, l *net.TCPListener) net.Conn {
	t.Helper()
	if err := l.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// connect gives both ends of a connection.
func connect(t *testing.T, l *net.TCPListener, network, addr string) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, accept(t, l)
}

// byUser is the Trust of a host where the user alone decides.
func byUser(uids ...uint32) *Trust { return &Trust{uids: uids, groups: new(cgroup.Hierarchy)} }

func me() []uint32 { return []uint32{uint32(os.Geteuid())} }

// inodeOf is what the peer itself says of its socket.
func inodeOf(t *testing.T, conn net.Conn) uint32 {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	var statErr error
	if err := raw.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &st) }); err != nil || statErr != nil {
		t.Fatal(err, statErr)
	}
	return uint32(st.Ino)
}

func TestOwnProcessIsFoundByItsSocket(t *testing.T) {
	for _, tt := range []struct{ name, network, listen, dial string }{
		{"IPv4", "tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"IPv4, not 127.0.0.1", "tcp4", "127.0.0.9:0", "127.0.0.9"},
		{"IPv6", "tcp6", "[::1]:0", "::1"},
		{"IPv4 client of a dual-stack listener", "tcp", "[::]:0", "127.0.0.1"},
		{"IPv6 client of a dual-stack listener", "tcp", "[::]:0", "::1"},
		{"IPv6 socket that speaks IPv4 on both sides", "tcp", "[::]:0", "mapped"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := listen(t, tt.network, tt.listen)
			port := l.Addr().(*net.TCPAddr).Port
			var client, server net.Conn
			if tt.dial == "mapped" {
				client = dialMapped(t, port)
				server = accept(t, l)
			} else {
				client, server = connect(t, l, "tcp", net.JoinHostPort(tt.dial, fmt.Sprint(port)))
			}
			got, err := Lookup(server)
			if err != nil {
				t.Fatal(err)
			}
			want := Caller{UID: me()[0], Inode: inodeOf(t, client), State: 1, Cookie: got.Cookie, Cgroup: got.Cgroup}
			if got != want || got.Cookie == 0 {
				t.Errorf("got %+v, want %+v and a cookie", got, want)
			}
			if !Trusted(ConnContext(t.Context(), server), byUser(me()...)) {
				t.Error("own uid is not trusted")
			}
		})
	}
}

// dialMapped connects an AF_INET6 socket to ::ffff:127.0.0.1, which Go's own
// dialer never does but other engines may.
func dialMapped(t *testing.T, port int) net.Conn {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "mapped")
	defer f.Close()
	addr := &unix.SockaddrInet6{Port: port, Addr: netip.MustParseAddr("::ffff:127.0.0.1").As16()}
	if err := unix.Connect(fd, addr); err != nil {
		t.Fatal(err)
	}
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestPeersSocketIsFoundAndNotOurOwn(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	client, server := connect(t, l, "tcp4", l.Addr().String())
	got, err := Lookup(server)
	if err != nil {
		t.Fatal(err)
	}
	if ours := inodeOf(t, server); got.Inode == ours || got.Inode != inodeOf(t, client) {
		t.Errorf("inode %d; the client's is %d, our own %d", got.Inode, inodeOf(t, client), ours)
	}
}

func TestProcessOfAnotherUserIsNotTrusted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to start a process as another user")
	}
	l := listen(t, "tcp", "[::]:0")
	port := l.Addr().(*net.TCPAddr).Port
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			stop := dialAs(t, 65534, net.JoinHostPort(host, fmt.Sprint(port)))
			defer stop()
			ctx := ConnContext(t.Context(), accept(t, l))
			got, err := FromContext(ctx)
			if err != nil || got.UID != 65534 {
				t.Fatalf("got %+v, %v; want uid 65534", got, err)
			}
			if Trusted(ctx, byUser(0, 1000)) {
				t.Error("uid 65534 passes for uid 0 or 1000")
			}
			if !Trusted(ctx, byUser(0, 65534)) {
				t.Error("a configured uid 65534 is not trusted")
			}
		})
	}
}

// dialAs connects as uid from a process of its own and returns the function that ends it.
func dialAs(t *testing.T, uid uint32, addr string) (stop func()) {
	t.Helper()
	_, stop = dialFromProcess(t, addr, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}})
	return stop
}

// dialFromProcess connects from a process that is started with attr.
func dialFromProcess(t *testing.T, addr string, attr *syscall.SysProcAttr) (pid int, stop func()) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The binary lies in root's own folder, where no other user may open it by name.
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Dir = "/"
	cmd.Env = []string{dialEnv + "=" + addr}
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("connected\n"))); err != nil {
		t.Fatalf("the client did not connect: %v", err)
	}
	return cmd.Process.Pid, func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatIsNotLoopbackTCPIsNobody(t *testing.T) {
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	for _, tt := range []struct {
		name          string
		local, remote net.Addr
		want          error
	}{
		{"remote address of the network", loopback, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, errNotLoopback},
		{"local address of the network", &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, loopback, errNotLoopback},
		{"IPv6 network", loopback, &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 1}, errNotLoopback},
		{"mapped network", loopback, &net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1"), Port: 1}, errNotLoopback},
		{"no address", loopback, &net.TCPAddr{}, errNotLoopback},
		{"unspecified", loopback, &net.TCPAddr{IP: net.IPv4zero, Port: 1}, errNotLoopback},
		{"unix socket", loopback, &net.UnixAddr{Name: "@", Net: "unix"}, errNotTCP},
		{"UDP", loopback, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, errNotTCP},
		{"nil", loopback, (*net.TCPAddr)(nil), errNotTCP},
		{"no connection at all", loopback, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2}, sockdiag.ErrNotFound},
		{"families mixed", &net.TCPAddr{IP: net.IPv6loopback, Port: 1}, loopback, sockdiag.ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn := addresses{local: tt.local, remote: tt.remote}
			_, err := Lookup(conn)
			if err == nil || !strings.Contains(err.Error(), tt.want.Error()) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if Trusted(ConnContext(t.Context(), conn), byUser(0)) {
				t.Error("trusted")
			}
		})
	}
}

// addresses is a connection of which only the addresses are asked for.
type addresses struct {
	net.Conn
	local, remote net.Addr
}

func (a addresses) LocalAddr() net.Addr  { return a.local }
func (a addresses) RemoteAddr() net.Addr { return a.remote }

func TestConnectionOverTheHostsOwnAddressIsNotTrusted(t *testing.T) {
	ip := hostAddress(t)
	l := listen(t, "tcp", net.JoinHostPort(ip.String(), "0"))
	_, server := connect(t, l, "tcp", l.Addr().String())
	if Trusted(ConnContext(t.Context(), server), byUser(me()...)) {
		t.Errorf("trusted over %v", ip)
	}
}

func hostAddress(t *testing.T) net.IP {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(addrs, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.IsGlobalUnicast()
	})
	if i < 0 {
		t.Skip("this host has no address except the loopback ones")
	}
	return addrs[i].(*net.IPNet).IP
}

// A listener is what the kernel offers where no connection matches; ours is
// root's, and the port that it listens on is the caller's to choose.
func TestListenerOnThePeersPortIsNotTakenForThePeer(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	conn := addresses{local: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, remote: l.Addr()}
	if caller, err := Lookup(conn); err == nil {
		t.Errorf("a listener was found to be %+v", caller)
	}
}

func TestManyLookupsAtOnceDoNotMixUpTheirAnswers(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	var wg sync.WaitGroup
	for range 200 {
		client, server := connect(t, l, "tcp4", l.Addr().String())
		want := inodeOf(t, client)
		wg.Go(func() {
			for range 20 {
				if got, err := Lookup(server); err != nil || got.Inode != want {
					t.Errorf("got %+v, %v; want inode %d", got, err, want)
				}
			}
		})
	}
	wg.Wait()
}
