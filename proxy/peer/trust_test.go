package peer

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
)

func TestWriteAndCloseAtOnceIsNeverTrusted(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	for range 200 {
		client, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		client.Close()
		server := accept(t, l)
		ctx := ConnContext(t.Context(), server)
		if caller, err := FromContext(ctx); err == nil {
			t.Fatalf("a closed socket was found to be %+v", caller)
		}
		if Trusted(ctx, byUser(0, uint32(os.Geteuid()))) {
			t.Fatal("a peer that wrote and closed at once is trusted")
		}
		server.Close()
	}
}

func TestTrustEndsWithTheConnection(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	client, server := connect(t, l, "tcp4", l.Addr().String())
	ctx := ConnContext(t.Context(), server)
	if !Trusted(ctx, byUser(me()...)) {
		t.Fatal("not trusted while it is there")
	}
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// The FIN has been handled once it can be read.
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("read: %v", err)
	}
	if Trusted(ctx, byUser(me()...)) {
		t.Error("trusted though its socket is no longer ESTABLISHED")
	}
	client.Close()
	if Trusted(ctx, byUser(me()...)) {
		t.Error("trusted after it has closed")
	}
	if _, err := FromContext(ctx); err != nil {
		t.Errorf("what was found at accept is lost: %v", err)
	}
}

func TestRequestWithoutConnContextIsNotTrusted(t *testing.T) {
	if Trusted(t.Context(), byUser(0)) {
		t.Error("trusted")
	}
	if _, err := FromContext(t.Context()); err == nil {
		t.Error("a caller out of nowhere")
	}
}

func TestWithoutTrustedUIDsNoCallerIsTrusted(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	_, server := connect(t, l, "tcp4", l.Addr().String())
	if Trusted(ConnContext(t.Context(), server), byUser()) {
		t.Error("trusted")
	}
}

func TestServerHandsTheCallerToItsHandlers(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	var trusted bool
	srv := &http.Server{
		ConnContext: ConnContext,
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			trusted = Trusted(r.Context(), byUser(me()...))
		}),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	client := &http.Client{Transport: &http.Transport{}}
	resp, err := client.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	client.CloseIdleConnections()
	srv.Close()
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if !trusted {
		t.Error("the handler does not know who asks")
	}
}
