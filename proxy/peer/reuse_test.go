package peer

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// dialFrom connects from a port of its own choice, as a socket that may take over a port of which a
// connection has just ended.
func dialFrom(t *testing.T, port int, to net.Addr) *net.TCPConn {
	t.Helper()
	d := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port},
		Control: func(_, _ string, c syscall.RawConn) error {
			var fault error
			err := c.Control(func(fd uintptr) { fault = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			if err != nil {
				return err
			}
			return fault
		},
	}
	conn, err := d.Dial("tcp4", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// reset sends what a request would be and resets the connection: the kernel still hands the bytes
// to the server, and the port is free at once.
func reset(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	if _, err := conn.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestConnectionResetBeforeItIsAcceptedIsNotTakenForTheNextOfItsPort(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	client := dialFrom(t, 0, l.Addr())
	port := client.LocalAddr().(*net.TCPAddr).Port
	reset(t, client)
	dialFrom(t, port, l.Addr()) // the trusted process that an attacker waits for
	server := accept(t, l)
	if n, err := server.Read(make([]byte, 100)); n == 0 {
		t.Fatalf("the kernel did not hand over the request of a connection that was reset: %v", err)
	}
	ctx := ConnContext(t.Context(), server)
	if caller, err := FromContext(ctx); err == nil {
		t.Errorf("a connection that was reset was found to be %+v", caller)
	}
	if Trusted(ctx, byUser(me()...)) {
		t.Error("a connection that was reset is trusted")
	}
}

func TestConnectionResetAfterItWasAcceptedIsNotTakenForTheNextOfItsPort(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	client := dialFrom(t, 0, l.Addr())
	port := client.LocalAddr().(*net.TCPAddr).Port
	server := accept(t, l)
	ctx := ConnContext(t.Context(), server)
	if !Trusted(ctx, byUser(me()...)) {
		t.Fatal("not trusted while it is there")
	}
	reset(t, client)
	dialFrom(t, port, l.Addr())
	if Trusted(ctx, byUser(me()...)) {
		t.Error("a connection that was reset is trusted")
	}
}
