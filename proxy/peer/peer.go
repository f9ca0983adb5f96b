// Package peer says whether the process at the other end of a loopback TCP connection is a trusted
// one, by asking the kernel for its user and control group (INET_DIAG over NETLINK_SOCK_DIAG, see
// sock_diag(7)).
//
// It looks at the peer's socket, not at its process. A socket keeps the uid, the inode and the
// control group of the process that made it, also if it was inherited or passed on over a Unix
// socket: what is known is who opened the connection and not who writes to it now. For the same
// reason a trusted process that forwards other people's connections (socat, a port forward that
// root runs) lends them its name.
package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/sockdiag"
)

// Caller is the socket at the other end of a connection, as the kernel has it.
type Caller = sockdiag.Socket

var (
	errNotTCP      = errors.New("not a TCP connection")
	errNotLoopback = errors.New("not a loopback connection")
	errEnded       = errors.New("the connection has ended")
)

// Lookup asks the kernel for the socket at the other end of conn. It returns an error, and the
// caller is then untrusted, if conn is not TCP between two loopback addresses, if there is no such
// socket, if either end is not ESTABLISHED, or if the socket has no inode: a peer that writes and
// closes at once leaves a socket of uid 0 and inode 0 behind, which is not root's.
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
	// While sidemirror's own end is ESTABLISHED, the kernel has no other connection between these
	// two addresses, so that the socket found is at the other end of conn. A peer that sends a
	// request and resets the connection frees its port: the kernel then finds the socket of the
	// process that uses the port next, and still hands over what the first one sent.
	if own, err := ownEnd(conn); err != nil {
		return Caller{}, fmt.Errorf("who is at %v: %w", theirs, err)
	} else if !established(own) {
		return Caller{}, fmt.Errorf("who is at %v: %w", theirs, errEnded)
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
	own     syscall.RawConn // sidemirror's end
	caller  Caller
	err     error
	decided atomic.Pointer[decision]
}

// decision is what a Trust has decided about the caller of a connection, for all its requests.
type decision struct {
	by      *Trust
	trusted bool
}

// trusted returns what t decides, which it does once per connection.
func (a *accepted) trusted(t *Trust) bool {
	d := a.decided.Load()
	if d == nil || d.by != t { // the first request, or the first since the configuration was replaced
		d = &decision{t, t.Trusts(a.caller)}
		a.decided.Store(d)
	}
	return d.trusted
}

// ConnContext is for [net/http.Server.ConnContext]. It looks up who is at the other end of c at
// once, before anything is read, and remembers c for [Trusted].
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	a := new(accepted)
	if a.caller, a.err = Lookup(c); a.err == nil {
		a.own, a.err = ownEnd(c)
	}
	return context.WithValue(ctx, contextKey{}, a)
}

func ownEnd(c net.Conn) (syscall.RawConn, error) {
	tcp, ok := c.(syscall.Conn)
	if !ok {
		return nil, errNotTCP
	}
	return tcp.SyscallConn()
}

// established reports whether a TCP socket is in state ESTABLISHED (tcp(7), TCP_INFO). It costs one
// system call, and asking sock_diag again would cost two that take ten times as long.
func established(own syscall.RawConn) bool {
	state := 0
	err := own.Control(func(fd uintptr) {
		// The state is the first byte of struct tcp_info; the kernel writes as many bytes of it as
		// there is room for, and an int has room for four.
		if v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			var b [4]byte
			binary.NativeEndian.PutUint32(b[:], uint32(v))
			state = int(b[0])
		}
	})
	return err == nil && state == unix.BPF_TCP_ESTABLISHED
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

// Trusted reports whether t, if not nil, trusts the caller of ctx. That is decided by the socket that was found
// when the connection was accepted, and the connection must still be ESTABLISHED: then this socket
// is still at its other end. If either cannot be found out, the caller is not trusted.
//
// Trusted records a caller whom t does not trust; see [Refusals].
func Trusted(ctx context.Context, t *Trust) bool {
	a, ok := ctx.Value(contextKey{}).(*accepted)
	if !ok || a.err != nil || t == nil {
		return false
	}
	if !a.trusted(t) {
		if ctx.Value(unrecordedKey{}) == nil {
			t.refused.note(a.caller)
		}
		return false
	}
	return established(a.own)
}
