// Package sockdiag asks the kernel who owns a TCP socket of this host: INET_DIAG over
// NETLINK_SOCK_DIAG, see sock_diag(7), and proc_pid_net(5) if that is not available.
//
// It looks at the socket, not at a process: a socket keeps the user, the inode and the control group
// of the process that made it, also if it was inherited or passed on over a unix socket.
package sockdiag

import (
	"errors"
	"net/netip"
)

// Socket is a TCP socket, as the kernel describes it.
type Socket struct {
	// UID is the user who made the socket, as seen from this process's user namespace: a user who
	// has no number there is 65534.
	UID uint32

	// Inode is the socket's inode, never 0: a socket that no process holds any more has none, and
	// the kernel then reports user 0 as its owner.
	Inode uint32

	// State is the TCP state: 1 is ESTABLISHED, 10 is LISTEN.
	State uint8

	// Cookie numbers the socket; the kernel uses no number twice, unlike inodes and ports.
	Cookie uint64

	// Cgroup is the id of the control group (cgroup v2) that the process which made the socket was
	// in at that time. It is 0 if the kernel does not report it, as before Linux 5.8.
	Cgroup uint64
}

// ErrNotFound reports that the kernel knows no such socket.
var ErrNotFound = errors.New("the kernel knows no such socket: it is closed, it is in another network namespace, or the module tcp_diag is missing")

var errOrphan = errors.New("no process holds the socket any more")

// Connection returns the socket whose own address is local and whose peer is remote. The connection
// must be ESTABLISHED, and a process must hold the socket. It looks in this process's own network
// namespace. Addresses must not be IPv4-mapped ([netip.Addr.Unmap]).
func Connection(local, remote netip.AddrPort) (Socket, error) {
	s, _, err := ask(flow{src: local, dst: remote})
	return s, err
}
