package admin

import (
	"errors"
	"net"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// checkedListener closes the connections of callers that may not use the socket, whatever mode the
// file has by now.
type checkedListener struct {
	*net.UnixListener
	admitted func(*net.UnixConn) bool
}

// Accept implements [net.Listener].
func (l checkedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if l.admitted(c) {
			return c, nil
		}
		_ = c.Close()
	}
}

// admitted reports whether the process that opened c may use the socket.
func admitted(c *net.UnixConn) bool {
	who, err := peerOf(c)
	if err != nil {
		return false
	}
	group := uint32(os.Getegid())
	return who.uid == 0 || who.uid == uint32(os.Geteuid()) || group != 0 && (who.gid == group || slices.Contains(who.groups, group))
}

// peer is the process at the other end of a connection, as it was when it connected.
type peer struct {
	uid, gid uint32
	groups   []uint32
}

// maxGroups bounds the groups of a process. Linux allows 65,536.
const maxGroups = 1 << 16

func peerOf(c *net.UnixConn) (p peer, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return p, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr == nil {
			p.groups = peerGroups(fd)
		}
	})
	if err = errors.Join(err, credErr); err != nil {
		return p, err
	}
	p.uid, p.gid = cred.Uid, cred.Gid
	return p, nil
}

// peerGroups returns the supplementary groups of the process at the other end; none where the kernel does
// not tell (before Linux 4.13).
func peerGroups(fd uintptr) []uint32 {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4]
		case errno != unix.ERANGE || len(groups) >= maxGroups:
			return nil
		}
		groups = make([]uint32, maxGroups)
	}
}
