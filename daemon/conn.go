package daemon

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// conn is a connection of an engine's. The TCPConn is embedded so that net/http
// finds ReadFrom, and a file goes to the socket without passing through us.
type conn struct {
	*net.TCPConn
	// stall is how long a reader may take nothing; up to twice as long where it has
	// taken some since the deadline was set.
	stall time.Duration
	head  headScanner // net/http has one reader at a time
	place *place
}

// Read looks at requests' heads as they come in. After one that is to be refused
// it fails, which net/http answers with 400, and closes.
func (c *conn) Read(b []byte) (int, error) {
	if c.head.err != nil {
		return 0, c.head.err
	}
	n, err := c.TCPConn.Read(b)
	if n > 0 {
		c.place.speak()
	}
	if passed := c.head.scan(b[:n]); passed < n {
		// What came before goes on: it may be the end of another request.
		n, err = passed, nil
		if passed == 0 {
			err = c.head.err
		}
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	written := 0
	for {
		n, again, err := c.withDeadline(func() (int64, error) {
			n, err := c.TCPConn.Write(b[written:])
			return int64(n), err
		})
		written += int(n)
		if !again {
			return written, err
		}
	}
}

// ReadFrom sends a file by sendfile(2). Other sources are copied, so that the wait
// for them does not count as the reader's.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
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

// withDeadline calls write once. again says that it ran out of time, but that the
// reader moved, so that what is left is to be tried again. That nothing could be written
// does not mean that the reader stands still: Linux takes more only when a third of its
// buffer is free, which is a megabyte; what is unacknowledged (tcp(7)) shows it.
func (c *conn) withDeadline(write func() (int64, error)) (n int64, again bool, err error) {
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

// unacknowledged is how many bytes the kernel holds that the reader's has not taken; 0
// where it does not say.
func (c *conn) unacknowledged() int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	held := 0
	// A connection that is closed has nothing to say, which its write will.
	_ = raw.Control(func(fd uintptr) { held, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return held
}

// Close gives the connection's place back.
func (c *conn) Close() error {
	c.place.leave()
	return c.TCPConn.Close()
}

// writerOnly and readerOnly keep io.Copy from finding ReadFrom and WriteTo again.
type (
	writerOnly struct{ io.Writer }
	readerOnly struct{ io.Reader }
)

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}
