// Package peer says which user's process is at the other end of a loopback TCP connection, by
// asking the kernel (INET_DIAG over NETLINK_SOCK_DIAG, see sock_diag(7)).
//
// It looks at the peer's socket, not at its process. A socket keeps the uid and the inode of the
// process that made it, also if it was inherited or passed on over a Unix socket: what is known is
// who opened the connection and not who writes to it now. For the same reason a trusted user's
// process that forwards other people's connections (socat, a port forward that root runs) lends
// them its name.
package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/sidemirror/sidemirror/internal/sockdiag"
)

// Caller is the socket at the other end of a connection, as the kernel has it.
type Caller = sockdiag.Socket

var (
	errNotTCP      = errors.New("not a TCP connection")
	errNotLoopback = errors.New("not a loopback connection")
)

// Lookup asks the kernel for the socket at the other end of conn, of which it uses the addresses
// only. It returns an error, and the caller is then untrusted, if conn is not TCP between two
// loopback addresses, if there is no such socket, or if it is not ESTABLISHED or has no inode: a
// peer that writes and closes at once leaves a socket of uid 0 and inode 0 behind, which is not
// root's.
func Lookup(conn net.Conn) (Caller, error) {
	theirs, err := endpoint(conn.RemoteAddr())
	if err != nil {
		return Caller{}, fmt.Errorf("who is at %v: %w", conn.RemoteAddr(), err)
	}
	ours, err := endpoint(conn.LocalAddr())
	if err != nil {
		return Caller{}, fmt.Errorf("who is at %v: our end %v: %w", theirs, conn.LocalAddr(), err)
	}
	// The peer's own socket: what is remote to us is its source.
	caller, err := sockdiag.Connection(theirs, ours)
	if err != nil {
		return Caller{}, fmt.Errorf("who is at %v: %w", theirs, err)
	}
	return caller, nil
}

// endpoint unmaps IPv4-mapped addresses: a dual-stack listener has them where
// the peer's socket is a plain AF_INET one. The kernel's AF_INET table holds both.
func endpoint(addr net.Addr) (netip.AddrPort, error) {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || tcp == nil {
		return netip.AddrPort{}, errNotTCP
	}
	at := tcp.AddrPort()
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if !at.Addr().IsLoopback() {
		return netip.AddrPort{}, errNotLoopback
	}
	return at, nil
}

type contextKey struct{}

// accepted is a connection and who was at its other end before it was read from.
type accepted struct {
	conn   net.Conn
	caller Caller
	err    error
}

// ConnContext is for [net/http.Server.ConnContext]. It looks up who is at the other end of c at
// once, before anything is read, and remembers c for [Trusted].
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	caller, err := Lookup(c)
	return context.WithValue(ctx, contextKey{}, &accepted{c, caller, err})
}

// FromContext returns what [ConnContext] found when the connection was accepted. It is for logs;
// [Trusted] says whether to trust the caller.
func FromContext(ctx context.Context) (Caller, error) {
	a, ok := ctx.Value(contextKey{}).(*accepted)
	if !ok {
		return Caller{}, errors.New("who is asking: the request's connection was not looked up when it was accepted")
	}
	return a.caller, a.err
}

// Trusted reports whether the request of ctx comes over a connection that one of uids opened. That
// was so when the connection was accepted, and a second look at the same socket must confirm it. An
// error in either makes it false.
func Trusted(ctx context.Context, uids []uint32) bool {
	a, ok := ctx.Value(contextKey{}).(*accepted)
	if !ok || a.err != nil || !slices.Contains(uids, a.caller.UID) {
		return false
	}
	now, err := Lookup(a.conn)
	return err == nil && now == a.caller
}
