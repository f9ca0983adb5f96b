package sockdiag

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

var testFlow = flow{src: netip.MustParseAddrPort("127.0.0.1:4242"), dst: netip.MustParseAddrPort("127.0.0.1:305")}

// reply is a well-formed reply to request 7 about testFlow, of uid 0.
func reply() []byte {
	native := binary.NativeEndian
	b := make([]byte, unix.SizeofNlMsghdr+messageSize)
	native.PutUint32(b, uint32(len(b)))
	native.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint32(b[8:], 7)
	body := b[unix.SizeofNlMsghdr:]
	body[0], body[1] = unix.AF_INET, tcpEstablished
	binary.BigEndian.PutUint16(body[4:], testFlow.src.Port())
	binary.BigEndian.PutUint16(body[6:], testFlow.dst.Port())
	copy(body[8:], testFlow.src.Addr().AsSlice())
	copy(body[24:], testFlow.dst.Addr().AsSlice())
	native.PutUint32(body[68:], 99)
	return b
}

func TestMalformedRepliesAreErrors(t *testing.T) {
	if got, _, err := parseReply(reply(), 7, testFlow); err != nil || got.Inode != 99 {
		t.Fatalf("the reply that the others are made from: %+v, %v", got, err)
	}
	const body = unix.SizeofNlMsghdr
	native := binary.NativeEndian
	for name, spoil := range map[string]func([]byte) []byte{
		"empty":             func(b []byte) []byte { return nil },
		"half a header":     func(b []byte) []byte { return b[:15] },
		"cut":               func(b []byte) []byte { return b[:len(b)-1] },
		"cut and so marked": func(b []byte) []byte { native.PutUint32(b, uint32(len(b)-1)); return b[:len(b)-1] },
		"length too small":  func(b []byte) []byte { native.PutUint32(b, 15); return b },
		"length too large":  func(b []byte) []byte { native.PutUint32(b, ^uint32(0)); return b },
		"another request's": func(b []byte) []byte { native.PutUint32(b[8:], 6); return b },
		"another type":      func(b []byte) []byte { native.PutUint16(b[4:], unix.NLMSG_DONE); return b },
		"error 0":           func(b []byte) []byte { native.PutUint16(b[4:], unix.NLMSG_ERROR); clear(b[body:]); return b },
		"error, cut": func(b []byte) []byte {
			native.PutUint16(b[4:], unix.NLMSG_ERROR)
			native.PutUint32(b, body+3)
			return b[:body+3]
		},
		"another port":    func(b []byte) []byte { b[body+5]++; return b },
		"another address": func(b []byte) []byte { b[body+11]++; return b },
		"the other way": func(b []byte) []byte {
			b[body+4], b[body+5], b[body+6], b[body+7] = b[body+6], b[body+7], b[body+4], b[body+5]
			return b
		},
		"IPv6":                        func(b []byte) []byte { b[body] = unix.AF_INET6; return b },
		"TIME_WAIT":                   func(b []byte) []byte { b[body+1] = 6; return b },
		"LISTEN":                      func(b []byte) []byte { b[body+1] = 10; return b },
		"inode 0, uid 0":              func(b []byte) []byte { native.PutUint32(b[body+68:], 0); return b },
		"an attribute without length": func(b []byte) []byte { return withAttribute(b, 0, 8, nil) },
		"an attribute that is longer than the reply": func(b []byte) []byte {
			return withAttribute(b, 13, cgroupID, make([]byte, 8))
		},
		"a cgroup id of four bytes": func(b []byte) []byte { return withAttribute(b, 8, cgroupID, make([]byte, 4)) },
	} {
		t.Run(name, func(t *testing.T) {
			if got, _, err := parseReply(spoil(reply()), 7, testFlow); err == nil {
				t.Errorf("taken for %+v", got)
			}
		})
	}
}

// withAttribute appends an attribute that claims to be length bytes long.
func withAttribute(b []byte, length, kind uint16, value []byte) []byte {
	native := binary.NativeEndian
	b = native.AppendUint16(bytes.Clone(b), length)
	b = native.AppendUint16(b, kind)
	b = append(b, value...)
	native.PutUint32(b, uint32(len(b)))
	return b
}

func TestTheControlGroupIsReadFromAmongTheAttributes(t *testing.T) {
	id := binary.NativeEndian.AppendUint64(nil, 4711<<32|12)
	shutdown := withAttribute(reply(), 5, 8, []byte{0, 0, 0, 0}) // one byte and its padding
	for name, test := range map[string]struct {
		reply []byte
		want  uint64
	}{
		"no attribute":       {reply(), 0},
		"another attribute":  {shutdown, 0},
		"the only attribute": {withAttribute(reply(), 12, cgroupID, id), 4711<<32 | 12},
		"the last attribute": {withAttribute(shutdown, 12, cgroupID, id), 4711<<32 | 12},
		"the first one":      {withAttribute(withAttribute(reply(), 12, cgroupID, id), 5, 8, []byte{0, 0, 0, 0}), 4711<<32 | 12},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := parseReply(test.reply, 7, testFlow)
			if err != nil || got.Cgroup != test.want {
				t.Errorf("%d, %v", got.Cgroup, err)
			}
		})
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add(reply())
	f.Add(reply()[:unix.SizeofNlMsghdr])
	errorReply := reply()
	binary.NativeEndian.PutUint16(errorReply[4:], unix.NLMSG_ERROR)
	f.Add(errorReply)
	f.Add(withAttribute(reply(), 12, cgroupID, make([]byte, 8)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, want := range []flow{testFlow, {src: testFlow.src}} {
			socket, _, err := parseReply(b, 7, want)
			switch {
			case err != nil && socket != (Socket{}):
				t.Errorf("an error and yet %+v", socket)
			case err == nil && (socket.Inode == 0 || socket.State != tcpEstablished && socket.State != tcpListen):
				t.Errorf("no error for %+v", socket)
			}
		}
	})
}
