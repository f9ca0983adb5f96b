package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dialLimit bounds the connection of a guest to an address that does not answer at all.
const dialLimit = 5 * time.Second

// Bridge is a bridge of this test process's network, as container engines make one.
type Bridge struct {
	t      testing.TB
	Name   string
	Prefix netip.Prefix // with this host's address there
}

// NewBridge makes a bridge. It is removed when the test ends. The process must have called [Isolate].
func NewBridge(t testing.TB, name, prefix string) *Bridge {
	t.Helper()
	if os.Getenv(isolated) == "" {
		t.Skip("a bridge needs a network of the test's own, and root")
	}
	b := &Bridge{t: t, Name: name, Prefix: netip.MustParsePrefix(prefix)}
	b.Up()
	t.Cleanup(func() { _ = run("link", "delete", name) }) // it may be gone already
	return b
}

// Up makes the bridge, also after Down.
func (b *Bridge) Up() {
	b.t.Helper()
	for _, line := range []string{
		"link add " + b.Name + " type bridge", "address add " + b.Prefix.String() + " dev " + b.Name, "link set " + b.Name + " up",
	} {
		if err := run(strings.Fields(line)...); err != nil {
			b.t.Fatal(err)
		}
	}
}

// Down removes the bridge. Its guests keep their own interfaces.
func (b *Bridge) Down() {
	b.t.Helper()
	if err := run("link", "delete", b.Name); err != nil {
		b.t.Fatal(err)
	}
}

// Route makes another network reachable over the bridge.
func (b *Bridge) Route(prefix string) {
	b.t.Helper()
	if err := run("route", "add", prefix, "dev", b.Name); err != nil {
		b.t.Fatal(err)
	}
}

// Guest is a network namespace that is connected to a bridge, as that of a container is.
type Guest struct {
	t       testing.TB
	bridge  *Bridge
	ns      *os.File
	holder  *exec.Cmd // has the namespace
	outside string    // its interface on the bridge
}

// NewGuest makes a guest with an address on the bridge, whose default route is this host.
func (b *Bridge) NewGuest(address string) *Guest {
	b.t.Helper()
	g := &Guest{t: b.t, bridge: b, holder: exec.Command("unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity")}
	g.holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := g.holder.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := g.holder.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = g.holder.Process.Kill()
		_ = g.holder.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil { // it is in its namespace
		b.t.Fatal(err)
	}
	pid := fmt.Sprint(g.holder.Process.Pid)
	if g.ns, err = os.Open("/proc/" + pid + "/ns/net"); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = g.ns.Close() })
	g.outside = "v" + pid
	if err := run("link", "add", g.outside, "type", "veth", "peer", "name", "eth0", "netns", pid); err != nil {
		b.t.Fatal(err)
	}
	g.Plug()
	for _, line := range []string{
		"link set lo up", fmt.Sprintf("address add %s/%d dev eth0", address, b.Prefix.Bits()), "link set eth0 up",
		"route add default via " + b.Prefix.Addr().String() + " dev eth0 onlink",
	} {
		words := slices.Concat(g.Command(), []string{"ip"}, strings.Fields(line))
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			b.t.Fatalf("%q: %v\n%s", words, err, out)
		}
	}
	return g
}

// Plug connects the guest to the bridge, which may have been made again.
func (g *Guest) Plug() {
	g.t.Helper()
	for _, line := range []string{"link set " + g.outside + " master " + g.bridge.Name, "link set " + g.outside + " up"} {
		if err := run(strings.Fields(line)...); err != nil {
			g.t.Fatal(err)
		}
	}
}

// Dial connects from the guest.
func (g *Guest) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer own.Close()
	if err := unix.Setns(int(g.ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	defer func() {
		// A thread that cannot go back stays locked, and ends with its goroutine.
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	// A literal address needs no second goroutine, which would run in another namespace.
	return (&net.Dialer{FallbackDelay: -1, Timeout: dialLimit}).DialContext(ctx, network, address)
}

// Command returns the words before a command line that is run in the guest.
func (g *Guest) Command() []string {
	return []string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", g.holder.Process.Pid), "--"}
}

// run runs ip(8).
func run(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
