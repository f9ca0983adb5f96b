package daemon

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// conn is a connection of an engine's. The TCPConn is embedded so that net/http
// finds ReadFrom, and a file goes to the socket without passing through us.
type conn struct {
	*net.TCPConn
	// stall is how long a writer may make no progress; twice as long where it made
	// some since the deadline was set.
	stall time.Duration
	head  headScanner // net/http has one reader at a time
	leave func()      // gives the place among the connections back, once
}

// Read looks at requests' heads as they come in. After one that is to be refused
// it fails, which net/http answers with 400, and closes.
func (c *conn) Read(b []byte) (int, error) {
	if c.head.err != nil {
		return 0, c.head.err
	}
	n, err := c.TCPConn.Read(b)
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
		n, err := c.withDeadline(func() (int64, error) {
			n, err := c.TCPConn.Write(b[written:])
			return int64(n), err
		})
		written += int(n)
		if err != nil || written == len(b) {
			return written, err
		}
	}
}

// ReadFrom sends a file by sendfile(2). Other sources are copied, so that the wait
// for them does not count as the reader's.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	rest, limited := r.(*io.LimitedReader)
	inner := r
	if limited {
		inner = rest.R
	}
	if _, file := inner.(*os.File); !file {
		buf := copyBuffers.Get().(*[]byte)
		defer copyBuffers.Put(buf)
		return io.CopyBuffer(writerOnly{c}, readerOnly{r}, *buf)
	}
	var written int64
	for {
		n, err := c.withDeadline(func() (int64, error) { return c.TCPConn.ReadFrom(r) })
		written += n
		if err != nil || n == 0 || limited && rest.N <= 0 {
			return written, err
		}
	}
}

// withDeadline calls write, and takes a timeout for success where there was progress.
func (c *conn) withDeadline(write func() (int64, error)) (int64, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	n, err := write()
	if n > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return n, err
}

// Close gives the connection's place back.
func (c *conn) Close() error {
	c.leave()
	return c.TCPConn.Close()
}

// writerOnly and readerOnly keep io.Copy from finding ReadFrom and WriteTo again.
type (
	writerOnly struct{ io.Writer }
	readerOnly struct{ io.Reader }
)

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}
