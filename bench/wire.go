package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// wire is one HTTP/1.1 connection of a client that costs the machine as little as
// it can, so that what is measured is the server: a body is thrown away in the
// kernel, never copied to us.
type wire struct {
	tcp     *net.TCPConn
	raw     syscall.RawConn
	in      *bufio.Reader
	address string
}

// dialTimeout bounds the making of a connection over loopback.
const dialTimeout = 10 * time.Second

// dial connects to an address as "127.0.0.1:80". A receive buffer of 0 bytes is
// the kernel's own choice.
func dial(ctx context.Context, address string, receive int) (*wire, error) {
	d := net.Dialer{Timeout: dialTimeout}
	if receive > 0 {
		// Before connect, or the window has been offered already (tcp(7)).
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var fault error
			err := c.Control(func(fd uintptr) {
				fault = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receive)
			})
			return errors.Join(err, fault)
		}
	}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	// No read outlives the run.
	if end, some := ctx.Deadline(); some {
		if err := c.SetDeadline(end); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	tcp := c.(*net.TCPConn)
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &wire{tcp: tcp, raw: raw, in: bufio.NewReader(c), address: address}, nil
}

func (w *wire) close() { _ = w.tcp.Close() }

// send asks for path. Header lines end in CRLF each.
func (w *wire) send(method, path, header string) error {
	_, err := fmt.Fprintf(w.tcp, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sidemirror-bench\r\n%s\r\n", method, path, w.address, header)
	return err
}

// answer reads the head of the response and returns it with the length of the body. If the status is
// not 200, the error has the beginning of the body.
func (w *wire) answer(method string) (http.Header, int64, error) {
	//nolint:bodyclose // the caller, who dialled, closes the connection; reading on here would copy the body
	resp, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		return nil, 0, fmt.Errorf("read the answer's head: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return nil, 0, fmt.Errorf("the answer is %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	if resp.ContentLength < 0 {
		return nil, 0, errors.New("the answer does not say how long it is")
	}
	return resp.Header, resp.ContentLength, nil
}

// sink is where a body goes that MSG_TRUNC throws away: nothing is ever written there.
var sink [4 << 20]byte

// drop throws away what has come of a body of which left bytes are to come, at
// most as much as it holds, and waits until something has.
func (w *wire) drop(left int64) (int64, error) {
	if n := int64(w.in.Buffered()); n > 0 {
		n = min(n, left)
		_, err := w.in.Discard(int(n))
		return n, err
	}
	var n int
	var fault error
	err := w.raw.Read(func(fd uintptr) bool {
		for {
			n, _, fault = unix.Recvfrom(int(fd), sink[:min(left, int64(len(sink)))], unix.MSG_TRUNC)
			if !errors.Is(fault, unix.EINTR) {
				return !errors.Is(fault, unix.EAGAIN)
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case fault != nil:
		return 0, fault
	case n == 0:
		return 0, io.ErrUnexpectedEOF
	}
	return int64(n), nil
}

// get asks for path and throws its body away. It tells when the first and the last
// byte of the body came, from start on, the longest wait between two of its reads,
// the one for the first included, and the length.
func (w *wire) get(path, header string, start time.Time) (times, int64, error) {
	var t times
	if err := w.send(http.MethodGet, path, header); err != nil {
		return t, 0, err
	}
	_, length, err := w.answer(http.MethodGet)
	if err != nil {
		return t, 0, err
	}
	last := time.Duration(0)
	for left := length; left > 0; {
		n, err := w.drop(left)
		if err != nil {
			return t, 0, fmt.Errorf("read the body, %d bytes before its end: %w", left, err)
		}
		now := time.Since(start)
		if left == length {
			t.First = now
		}
		t.Gap = max(t.Gap, now-last)
		last, left = now, left-n
	}
	t.Last = last
	return t, length, nil
}

// head asks for path by HEAD and gives the digest that the answer names.
func (w *wire) head(path, header string) (string, error) {
	if err := w.send(http.MethodHead, path, header); err != nil {
		return "", err
	}
	answered, _, err := w.answer(http.MethodHead)
	if err != nil {
		return "", err
	}
	return answered.Get("Docker-Content-Digest"), nil
}
