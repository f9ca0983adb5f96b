package listener

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limitedConn is a connection that holds a slot of a Limiter. The TCPConn is embedded so that
// net/http finds ReadFrom, and the kernel sends a file without copying it through the process.
type limitedConn struct {
	*net.TCPConn
	// stall is how long the client may read nothing. It is up to twice as long if the client
	// has read something since the deadline was set.
	stall  time.Duration
	header headerScanner // net/http has one reader at a time
	opaque bool          // TLS, in which headers cannot be seen
	slot   *slot
	raw    syscall.RawConn // nil if the connection is closed already
}

func newLimitedConn(tcp *net.TCPConn, stall time.Duration, s *slot) *limitedConn {
	raw, _ := tcp.SyscallConn()
	return &limitedConn{TCPConn: tcp, stall: stall, slot: s, raw: raw}
}

// Read scans the headers of requests as they come in. After a header that must be refused it
// fails, and net/http returns 400 and closes the connection.
func (c *limitedConn) Read(b []byte) (int, error) {
	if c.header.err != nil {
		return 0, c.header.err
	}
	n, err := c.TCPConn.Read(b)
	if n > 0 {
		c.slot.speak()
	}
	if c.opaque {
		return n, err
	}
	if passed := c.header.scan(b[:n]); passed < n {
		// What came before is passed on: it may be the end of another request.
		n, err = passed, nil
		if passed == 0 {
			err = c.header.err
		}
	}
	return n, err
}

// Write writes b. Nearly every response fits into the kernel's buffer, and then no deadline is
// needed.
func (c *limitedConn) Write(b []byte) (int, error) {
	written := c.writeNow(b)
	for written < len(b) {
		n, again, err := c.withDeadline(func() (int64, error) {
			n, err := c.TCPConn.Write(b[written:])
			return int64(n), err
		})
		written += int(n)
		if !again {
			return written, err
		}
	}
	return written, nil
}

// writeNow writes what the kernel takes of b without waiting. It returns no error: the next write
// has it too.
func (c *limitedConn) writeNow(b []byte) (written int) {
	if c.raw == nil {
		return 0
	}
	_ = c.raw.Write(func(fd uintptr) bool {
		if n, err := unix.Write(int(fd), b); err == nil {
			written = n
		}
		return true
	})
	return written
}

// ReadFrom sends a file by sendfile(2). It copies other sources, so that the wait for them
// does not count as the client's.
func (c *limitedConn) ReadFrom(r io.Reader) (int64, error) {
	inner := r
	if limited, ok := r.(*io.LimitedReader); ok {
		inner = limited.R
	}
	if _, file := inner.(*os.File); !file {
		buf := copyBuffers.Get().(*[]byte)
		defer copyBuffers.Put(buf)
		return io.CopyBuffer(writerOnly{c}, readerOnly{r}, *buf)
	}
	var written int64
	for {
		n, again, err := c.withDeadline(func() (int64, error) { return c.TCPConn.ReadFrom(r) })
		written += n
		if !again {
			return written, err
		}
	}
}

// withDeadline calls write once. again reports that it ran out of time although the client
// was reading, so that the rest should be tried again. If nothing could be written, the client
// may still be reading: Linux accepts more only when a third of its buffer is free, which is a
// megabyte. The number of unacknowledged bytes (tcp(7)) shows it.
func (c *limitedConn) withDeadline(write func() (int64, error)) (n int64, again bool, err error) {
	before := c.unacknowledged()
	if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, false, err
	}
	n, err = write()
	if errors.Is(err, os.ErrDeadlineExceeded) && (n > 0 || c.unacknowledged() < before) {
		return n, true, nil
	}
	return n, false, err
}

// unacknowledged returns how many bytes the kernel holds that the client's kernel has not
// received, or 0 if that is unknown.
func (c *limitedConn) unacknowledged() int {
	if c.raw == nil {
		return 0
	}
	held := 0
	// If the connection is closed this fails, and so will the next write.
	_ = c.raw.Control(func(fd uintptr) { held, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return held
}

// Close closes the connection and releases its slot.
func (c *limitedConn) Close() error {
	c.slot.release()
	return c.TCPConn.Close()
}

// writerOnly and readerOnly hide ReadFrom and WriteTo from io.Copy.
type (
	writerOnly struct{ io.Writer }
	readerOnly struct{ io.Reader }
)

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}
