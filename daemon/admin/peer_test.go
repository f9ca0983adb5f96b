package admin

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const otherUser = 65534

// openFolder is a folder that every user can reach.
func openFolder(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	folder, err := os.MkdirTemp("/tmp", "admin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil { //nolint:gosec // another user must reach the socket
		t.Fatal(err)
	}
	return folder
}

// connectAs connects to a socket as another user, in a thread of its own that ends afterwards. The mode
// of the socket lets every user in.
func connectAs(t *testing.T, socket string, uid uint32, groups ...uint32) net.Conn {
	t.Helper()
	if err := os.Chmod(socket, 0o666); err != nil { //nolint:gosec // as an administrator might by mistake
		t.Fatal(err)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked
		const same = ^uintptr(0)
		if uid != 0 {
			for _, call := range [][4]uintptr{
				{unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups)))},
				{unix.SYS_SETRESGID, same, uintptr(uid), same},
				{unix.SYS_SETRESUID, same, uintptr(uid), same},
			} {
				if _, _, errno := syscall.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
					made <- result{err: errno}
					return
				}
			}
		}
		conn, err := net.Dial("unix", socket)
		made <- result{conn, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { _ = r.conn.Close() })
	_ = r.conn.SetDeadline(time.Now().Add(20 * time.Second))
	return r.conn
}

// The file's mode alone would let this user in.
func TestAnotherUserIsNotServedWhateverTheModeOfTheFile(t *testing.T) {
	folder := openFolder(t)
	serve(t, folder, nil)
	ask := func(uid uint32) string {
		conn := connectAs(t, filepath.Join(folder, name), uid)
		_, _ = io.WriteString(conn, "GET /healthz HTTP/1.0\r\nHost: sidemirror\r\n\r\n")
		out, _ := io.ReadAll(conn)
		return string(out)
	}
	if out := ask(otherUser); strings.Contains(out, "200 OK") {
		t.Errorf("another user is served: %s", out)
	}
	if out := ask(0); !strings.Contains(out, " 200 OK\r\n") || !strings.HasSuffix(out, "ok\n") {
		t.Errorf("root is not served: %s", out)
	}
}

func TestMembersOfTheGroupAreRecognizedBySupplementaryGroups(t *testing.T) {
	socket := filepath.Join(openFolder(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var many []uint32
	for g := range uint32(200) { // more than the first buffer has room for
		many = append(many, 5000+g)
	}
	connectAs(t, socket, otherUser, many...)
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	who, err := peerOf(c)
	_ = c.Close()
	if err != nil || who.uid != otherUser || who.gid != otherUser || !slices.Contains(who.groups, 5199) {
		t.Errorf("%d groups of %d:%d, %v", len(who.groups), who.uid, who.gid, err)
	}
}
