package process

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// connectLimit is for a socket whose process takes no connections.
const connectLimit = 2 * time.Second

// ownsSocket reports whether c listens at a socket that only root can have made.
//
// A connection can make systemd start an engine that is stopped. A process of a container is
// therefore not asked, and one that belongs to a user's session only if its executable was inspected.
func ownsSocket(ctx context.Context, name string, c candidate, inspected bool) bool {
	if name == "" || inContainer(c.cgroup) || !inspected && inUserSession(c.cgroup) || !madeByRoot(name) {
		return false
	}
	dialer := net.Dialer{Timeout: connectLimit}
	conn, err := dialer.DialContext(ctx, "unix", name)
	if err != nil {
		return false
	}
	defer conn.Close()
	peer, err := PeerOf(conn)
	return err == nil && int(peer.Pid) == c.pid && peer.Uid == 0
}

// PeerOf returns the credentials of the process that listens at the other end of a Unix socket.
func PeerOf(conn net.Conn) (*unix.Ucred, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil, errors.New("this connection has no credentials")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) { peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return nil, err
	}
	return peer, peerErr
}

// madeByRoot reports whether a socket belongs to root, in a folder in which only root can make
// files, all the way down from the root.
func madeByRoot(name string) bool {
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return false
	}
	info, err := os.Lstat(real)
	if err != nil || info.Mode().Type() != fs.ModeSocket || !ownedByRoot(info) {
		return false
	}
	// Both ways are walked: the links of the one lead to the other.
	for _, at := range []string{path.Dir(path.Clean(name)), path.Dir(real)} {
		for ; ; at = path.Dir(at) {
			info, err := os.Lstat(at)
			if err != nil || !ownedByRoot(info) || info.IsDir() && writableByOthers(info) {
				return false
			}
			if at == "/" {
				break
			}
		}
	}
	return true
}

// writableByOthers reports whether another group than root's, or every user, can write to a folder.
// buildkitd makes its own with mode 0770.
func writableByOthers(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || info.Mode().Perm()&0o002 != 0 || info.Mode().Perm()&0o020 != 0 && st.Gid != 0
}

func ownedByRoot(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == 0
}
