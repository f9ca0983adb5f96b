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

// wire is one HTTP/1.1 connection of a client that costs the machine little, so that the figures are
// the server's: the kernel drops the bodies instead of copying them.
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

// send asks for path by GET.
func (w *wire) send(path string) error {
	_, err := fmt.Fprintf(w.tcp, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sidemirror-bench\r\n\r\n", path, w.address)
	return err
}

// answer reads the head of the response and returns the length of the body. If the status is not
// 200, the error has the beginning of the body.
func (w *wire) answer() (int64, error) {
	//nolint:bodyclose // the caller, who dialled, closes the connection; reading on here would copy the body
	resp, err := http.ReadResponse(w.in, &http.Request{Method: http.MethodGet})
	if err != nil {
		return 0, fmt.Errorf("read the answer's head: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return 0, fmt.Errorf("the answer is %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	if resp.ContentLength < 0 {
		return 0, errors.New("the answer does not say how long it is")
	}
	return resp.ContentLength, nil
}

// sink is the buffer of reads with MSG_TRUNC, which write nothing.
var sink [4 << 20]byte

// drop waits for bytes of a body of which left bytes are missing, drops them and returns how many.
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

// get asks for path and drops the body. It returns when the first and the last byte of the body came,
// counted from start, the longest wait for a byte, and the length.
func (w *wire) get(path string, start time.Time) (times, int64, error) {
	var t times
	if err := w.send(path); err != nil {
		return t, 0, err
	}
	length, err := w.answer()
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
