package listener

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serveOn runs a server with handler on a listener with these limits.
func serveOn(t *testing.T, l *Limiter, stall time.Duration, handler http.HandlerFunc) string {
	t.Helper()
	tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(handler)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(limitedListener{TCPListener: tcp, limiter: l, stall: stall})
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return tcp.Addr().String()
}

func trustAll() *Limiter { return NewLimiter(func(net.Conn) bool { return true }) }

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func ok(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, "ok")
}

func TestRefusedHeaderReturns400AndClosesTheConnection(t *testing.T) {
	t.Parallel()
	addr := serveOn(t, trustAll(), time.Minute, ok)
	good := "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
	posted := "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n\r\n a"
	for _, tt := range []struct {
		name, before, bad string
		status            int
	}{
		{"fold", "", "GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n", 400},
		{"fold after a request", good, "GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n\tc\r\n\r\n", 400},
		{"fold after a body like one", posted, "GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n", 400},
		{"length and encoding", "", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		{"encoding", good, "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"two lengths", "", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
		{"head of 40 KiB", "", "GET / HTTP/1.1\r\nHost: localhost\r\nA: " + strings.Repeat("x", 40<<10) + "\r\n\r\n", 431},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, addr)
			r := bufio.NewReader(c)
			if tt.before != "" {
				_, _ = io.WriteString(c, tt.before)
				if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 200 {
					t.Fatalf("the request before it: %v, %v", resp, err)
				} else if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Fatal(err)
				}
			}
			_, _ = io.WriteString(c, tt.bad)
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != tt.status || !resp.Close {
				t.Fatalf("got %v, %v; want %d and a close", resp, err, tt.status)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("the connection is still open")
			}
		})
	}
}

// podman, buildah, skopeo and CRI-O try TLS first at a mirror that is insecure, and so do containerd
// and Docker with containerd's store at localhost. These fall back to plain HTTP if the response is one.
func TestTLSHelloGetsAResponseOfHTTPAtOnce(t *testing.T) {
	t.Parallel()
	addr := serveOn(t, trustAll(), time.Minute, ok)
	c := dial(t, addr)
	if _, err := c.Write([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")); err != nil { // no newline
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 400 ") {
		t.Errorf("the server sent %q, %v; want a response 400 and the end of the connection", got, err)
	}
	for range 20 { // a hello is random, and may have newlines
		hello := tls.Client(dial(t, addr), &tls.Config{ServerName: "localhost"})
		var plain tls.RecordHeaderError
		if err := hello.HandshakeContext(t.Context()); !errors.As(err, &plain) || string(plain.RecordHeader[:]) != "HTTP/" {
			t.Fatalf("the handshake ends with %v, want a response of HTTP", err)
		}
	}
}

func TestHTTP2IsNotServed(t *testing.T) {
	t.Parallel()
	c := dial(t, serveOn(t, trustAll(), time.Minute, ok))
	_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 ") {
		t.Errorf("the response to the preface is %q, %v", line, err)
	}
}

func TestHeaderOf30KiBIsServed(t *testing.T) {
	t.Parallel()
	addr := serveOn(t, trustAll(), time.Minute, ok)
	c := dial(t, addr)
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: localhost\r\nA: %s\r\n\r\n", strings.Repeat("x", 30<<10))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("got %v, %v", resp, err)
	}
	_ = resp.Body.Close()
}

func TestClientThatReadsNothingIsDisconnected(t *testing.T) {
	t.Parallel()
	path := randomFile(t, 64<<20)
	for _, tt := range []struct {
		name string
		send func(io.Writer) error
	}{
		{"bytes", func(w io.Writer) error { return writeForever(w) }},
		{"sendfile", func(w io.Writer) error { return sendFileTo(w, path) }},
		{"another source", func(w io.Writer) error {
			_, err := io.Copy(w, endless{})
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			result := make(chan error, 1)
			addr := serveOn(t, trustAll(), 50*time.Millisecond, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(64<<20))
				result <- tt.send(w)
			})
			c := dial(t, addr)
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
			select {
			case err := <-result:
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("got %v, want a deadline exceeded", err)
				}
			case <-time.After(15 * time.Second):
				t.Error("it was not disconnected")
			}
		})
	}
}

func writeForever(w io.Writer) error {
	for b := make([]byte, 1<<20); ; {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func sendFileTo(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(w, f, 64<<20)
	return err
}

func randomFile(t *testing.T, size int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blob")
	data := make([]byte, size)
	_, _ = rand.Read(data)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A client that takes several times the stall for the whole, but never as long for a part,
// receives every byte.
func TestSlowClientReceivesEveryByte(t *testing.T) {
	t.Parallel()
	const size, portions = 12 << 20, 40
	path := randomFile(t, size)
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		serve http.HandlerFunc
	}{
		{"sendfile", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }},
		{"one write", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			_, _ = w.Write(want)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const stall = 500 * time.Millisecond
			addr := serveOn(t, trustAll(), stall, tt.serve)
			c := dial(t, addr)
			if err := c.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			r := bufio.NewReader(c)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, size)
			pace := time.NewTicker(stall / 10)
			defer pace.Stop()
			for i := range portions {
				<-pace.C // this test is about the slowness of the client
				if _, err := io.ReadFull(resp.Body, got[i*size/portions:(i+1)*size/portions]); err != nil {
					t.Fatalf("disconnected after %d of %d portions: %v", i, portions, err)
				}
			}
			if !bytes.Equal(got, want) {
				t.Error("other bytes arrived than were sent")
			}
		})
	}
}

func TestNetHTTPFindsReadFrom(t *testing.T) {
	var c any = &limitedConn{}
	if _, ok := c.(io.ReaderFrom); !ok {
		t.Error("limitedConn has no ReadFrom: blobs would be copied through the process")
	}
}
