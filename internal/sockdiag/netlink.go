package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes and values of linux/inet_diag.h and net/tcp_states.h that x/sys/unix has not.
const (
	requestSize    = 56 // struct inet_diag_req_v2
	messageSize    = 72 // struct inet_diag_msg
	attributeSize  = 4  // struct nlattr
	cgroupID       = 21 // INET_DIAG_CGROUP_ID, which the kernel sends unasked
	tcpEstablished = 1
	tcpListen      = 10
	allStates      = 0xffffffff

	// replyLimit is ample: a message is 72 bytes and some 100 of attributes.
	replyLimit = 4096

	// replyWithin bounds the wait for the kernel, which replies within the send.
	replyWithin = 100 * time.Millisecond
)

// flow is one direction of a TCP connection, addresses unmapped. That of a listener has no dst.
type flow struct{ src, dst netip.AddrPort }

// listener reports whether the flow is that of a socket in LISTEN.
func (f flow) listener() bool {
	return f.dst.Port() == 0 && (!f.dst.Addr().IsValid() || f.dst.Addr().IsUnspecified())
}

var sequence atomic.Uint32

// sockets are netlink sockets without an error so far, for the next look-up: opening one costs more
// than the look-up. One look-up at a time uses each, and one with any error is closed, so that no
// late reply is ever found on it. These few stay open as long as the process runs.
var sockets = make(chan *socket, 8)

// socket is a netlink socket, and room for what comes and goes on it.
type socket struct {
	fd             int
	request, reply []byte
}

// borrow returns an open socket.
func borrow() (*socket, error) {
	select {
	case s := <-sockets:
		return s, nil
	default:
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("opening a sock_diag netlink socket (a systemd unit needs AF_NETLINK in RestrictAddressFamilies): %w", err)
	}
	timeout := unix.NsecToTimeval(replyWithin.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("limiting the wait for sock_diag: %w", err)
	}
	return &socket{fd: fd, reply: make([]byte, replyLimit)}, nil
}

// giveBack stores s for the next look-up.
func (s *socket) giveBack() {
	select {
	case sockets <- s:
	default:
		unix.Close(s.fd)
	}
}

// ask sends one exact look-up: 6 µs on a socket that is open already, else 15 µs.
func ask(want flow) (Socket, netip.AddrPort, error) {
	s, err := borrow()
	if err != nil {
		return Socket{}, netip.AddrPort{}, err
	}
	reply, seq, err := s.exchange(want)
	if err != nil {
		unix.Close(s.fd)
		return Socket{}, netip.AddrPort{}, err
	}
	defer s.giveBack()
	return parseReply(reply, seq, want)
}

// exchange sends the look-up and receives its reply.
func (s *socket) exchange(want flow) (reply []byte, seq uint32, err error) {
	seq = sequence.Add(1)
	s.request = appendRequest(s.request[:0], seq, want)
	if err := unix.Sendto(s.fd, s.request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, 0, fmt.Errorf("asking sock_diag: %w", err)
	}
	if reply, err = s.receive(); err != nil {
		return nil, 0, fmt.Errorf("reading the reply of sock_diag: %w", err)
	}
	return reply, seq, nil
}

// receive reads one datagram of the kernel. Any process may send to a netlink socket; the port id
// tells it from the kernel.
func (s *socket) receive() ([]byte, error) {
	for deadline := time.Now().Add(replyWithin); ; {
		n, _, flags, from, err := unix.Recvmsg(s.fd, s.reply, nil, 0)
		if errors.Is(err, unix.EINTR) && time.Now().Before(deadline) {
			continue // the Go scheduler's signals end a receive that has a timeout
		}
		if err != nil {
			return nil, err
		}
		kernel, ok := from.(*unix.SockaddrNetlink)
		switch {
		case !ok || kernel.Pid != 0:
			return nil, errors.New("it did not come from the kernel")
		case flags&unix.MSG_TRUNC != 0:
			return nil, fmt.Errorf("it is longer than %d bytes", replyLimit)
		}
		return s.reply[:n], nil
	}
}

// appendRequest appends a SOCK_DIAG_BY_FAMILY message for the one socket of want:
// struct nlmsghdr, then struct inet_diag_req_v2.
func appendRequest(b []byte, seq uint32, want flow) []byte {
	native := binary.NativeEndian
	b = native.AppendUint32(b, unix.SizeofNlMsghdr+requestSize)
	b = native.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = native.AppendUint16(b, unix.NLM_F_REQUEST)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, 0) // the kernel fills in our port id

	b = append(b, family(want), unix.IPPROTO_TCP, 0, 0)
	b = native.AppendUint32(b, allStates)
	b = binary.BigEndian.AppendUint16(b, want.src.Port())
	b = binary.BigEndian.AppendUint16(b, want.dst.Port())
	b = appendAddr(b, want.src.Addr())
	b = appendAddr(b, want.dst.Addr())
	b = native.AppendUint32(b, 0)             // any interface
	return native.AppendUint64(b, ^uint64(0)) // INET_DIAG_NOCOOKIE: any socket
}

func family(f flow) uint8 {
	if f.src.Addr().Is4() && (f.dst.Addr().Is4() || !f.dst.Addr().IsValid()) {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// appendAddr fills __be32[4]; an IPv4 address stands in the first of them.
func appendAddr(b []byte, addr netip.Addr) []byte {
	var field [16]byte
	copy(field[:], addr.AsSlice())
	return append(b, field[:]...)
}

// parseReply reads the kernel's reply to the request numbered seq. It returns the socket and its
// own address, which is not that of want if the kernel found a listener in its place.
func parseReply(b []byte, seq uint32, want flow) (Socket, netip.AddrPort, error) {
	none := netip.AddrPort{}
	native := binary.NativeEndian
	if len(b) < unix.SizeofNlMsghdr {
		return Socket{}, none, fmt.Errorf("sock_diag replied with %d bytes, less than a header", len(b))
	}
	length, kind, got := native.Uint32(b), native.Uint16(b[4:]), native.Uint32(b[8:])
	if got != seq {
		return Socket{}, none, fmt.Errorf("sock_diag replied to request %d instead of %d", got, seq)
	}
	if length < unix.SizeofNlMsghdr || uint64(length) > uint64(len(b)) {
		return Socket{}, none, fmt.Errorf("sock_diag's reply is %d bytes and claims %d", len(b), length)
	}
	body := b[unix.SizeofNlMsghdr:length]
	switch kind {
	case unix.NLMSG_ERROR:
		return Socket{}, none, parseError(body)
	case unix.SOCK_DIAG_BY_FAMILY:
		return parseMessage(body, want)
	}
	return Socket{}, none, fmt.Errorf("sock_diag replied with message type %d", kind)
}

// parseError reads struct nlmsgerr, which is never a success here.
func parseError(body []byte) error {
	if len(body) < 4 {
		return errors.New("sock_diag replied with half an error")
	}
	switch code := int32(binary.NativeEndian.Uint32(body)); {
	case code == -int32(unix.ENOENT):
		return ErrNotFound
	case code < 0 && code > -4096: // the kernel's MAX_ERRNO
		return fmt.Errorf("sock_diag: %w", unix.Errno(-code))
	default:
		return fmt.Errorf("sock_diag replied with the unknown error %d", code)
	}
}

// parseMessage reads struct inet_diag_msg and, among the attributes that follow it, the socket's
// control group.
func parseMessage(body []byte, want flow) (Socket, netip.AddrPort, error) {
	none := netip.AddrPort{}
	if len(body) < messageSize {
		return Socket{}, none, fmt.Errorf("sock_diag described a socket in %d bytes instead of %d", len(body), messageSize)
	}
	native := binary.NativeEndian
	found := flow{
		src: netip.AddrPortFrom(readAddr(body[0], body[8:24]), binary.BigEndian.Uint16(body[4:])),
		dst: netip.AddrPortFrom(readAddr(body[0], body[24:40]), binary.BigEndian.Uint16(body[6:])),
	}
	socket := Socket{
		State:  body[1],
		Cookie: uint64(native.Uint32(body[44:])) | uint64(native.Uint32(body[48:]))<<32,
		UID:    native.Uint32(body[64:]),
		Inode:  native.Uint32(body[68:]),
	}
	switch {
	case want.listener():
		if !found.listener() || found.src.Port() != want.src.Port() || socket.State != tcpListen {
			return Socket{}, none, ErrNotFound
		}
	case found != want:
		// If no connection matches, the kernel offers a listener on that port.
		return Socket{}, none, ErrNotFound
	case socket.State != tcpEstablished:
		return Socket{}, none, fmt.Errorf("the socket is in TCP state %d, not ESTABLISHED", socket.State)
	}
	if socket.Inode == 0 {
		return Socket{}, none, errOrphan
	}
	var err error
	if socket.Cgroup, err = parseCgroup(body[messageSize:]); err != nil {
		return Socket{}, none, err
	}
	return socket, found.src, nil
}

// parseCgroup returns the value of INET_DIAG_CGROUP_ID, or 0 if there is none. Each attribute is a
// struct nlattr and its value, and begins at a multiple of four bytes.
func parseCgroup(b []byte) (id uint64, err error) {
	native := binary.NativeEndian
	for len(b) >= attributeSize {
		length, kind := int(native.Uint16(b)), native.Uint16(b[2:])
		if length < attributeSize || length > len(b) {
			return 0, fmt.Errorf("sock_diag sent an attribute of %d bytes in %d", length, len(b))
		}
		if kind == cgroupID {
			if length != attributeSize+8 {
				return 0, fmt.Errorf("sock_diag sent a cgroup id of %d bytes", length-attributeSize)
			}
			return native.Uint64(b[attributeSize:]), nil
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return 0, nil
}

func readAddr(family uint8, field []byte) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(field))
	}
	return netip.AddrFrom16([16]byte(field)).Unmap()
}
