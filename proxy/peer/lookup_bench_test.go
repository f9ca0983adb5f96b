package peer

import (
	"net"
	"testing"
)

// pair returns the server's end of a connection from this process.
func pair(b *testing.B) net.Conn {
	b.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { client.Close() })
	server, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { server.Close() })
	return server
}

func BenchmarkLookup(b *testing.B) {
	server := pair(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Lookup(server); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTrusted(b *testing.B) {
	ctx := ConnContext(b.Context(), pair(b))
	t := byUser(me()...)
	b.ReportAllocs()
	for b.Loop() {
		if !Trusted(ctx, t) {
			b.Fatal("not trusted")
		}
	}
}
