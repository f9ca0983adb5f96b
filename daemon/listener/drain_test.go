package listener

import (
	"context"
	"net"
	"testing"
	"time"
)

// dialed returns a connection that l counts, and its other end.
func dialed(t *testing.T, l *Limiter) (server *limitedConn, client net.Conn) {
	t.Helper()
	tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	client, err = net.Dial("tcp4", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	conn, err := tcp.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	s := l.acquire(conn)
	if s == nil {
		t.Fatal("there is no slot")
	}
	return newLimitedConn(conn, time.Minute, s), client
}

// A request that has arrived and was not read yet would be lost if its connection counted as silent.
func TestDrainWaitsForARequestThatWasNotReadYet(t *testing.T) {
	l := NewLimiter(func(net.Conn) bool { return true })
	server, client := dialed(t, l)
	if _, err := client.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*silence)
	defer cancel()
	if l.Drain(ctx) {
		t.Error("a connection with an unread request counts as silent")
	}
	if _, err := server.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	go func() { done <- l.Drain(t.Context()) }()
	_ = server.Close()
	if !<-done {
		t.Error("nothing is left, and Drain says that something is")
	}
}

func TestDrainDoesNotWaitForConnectionsThatSentNothing(t *testing.T) {
	l := NewLimiter(func(net.Conn) bool { return true })
	server, _ := dialed(t, l)
	defer server.Close()
	if !l.Drain(t.Context()) {
		t.Error("a silent connection keeps Drain waiting")
	}
}
