package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// Nobody is the id of the user nobody, who is not trusted.
const Nobody = 65534

// Answer is a response read to its end.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte

	// Err is what reading the body ended with, nil where it ended cleanly.
	Err error
}

// Client is a plain HTTP client with connections of its own, that follows no
// redirect and decompresses nothing.
func Client(tb testing.TB) *http.Client {
	return client(tb, (&net.Dialer{}).DialContext)
}

// ClientAs is like Client, but its sockets belong to the user uid, which is what the kernel reports.
// It skips the test if the process is not root.
func ClientAs(tb testing.TB, uid uint32) *http.Client {
	return client(tb, DialAs(tb, uid))
}

// DialAs makes connections whose sockets belong to the user uid. It skips the
// test where we are not root.
func DialAs(tb testing.TB, uid uint32) func(ctx context.Context, network, address string) (net.Conn, error) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("sockets of another user need root")
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		// A socket belongs to its maker's fsuid, which is a thread's. The raw call
		// sets this thread's alone; Go's own would set the whole process's.
		runtime.LockOSThread()
		if err := setfsuid(uid); err != nil {
			return nil, err
		}
		defer func() {
			// A thread that cannot go back stays locked, and ends with its goroutine.
			if setfsuid(0) == nil {
				runtime.UnlockOSThread()
			}
		}()
		return (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, address)
	}
}

// setfsuid sets the calling thread's. The system call reports no error: it answers
// with the one before, which is asked for by setting what is none.
func setfsuid(uid uint32) error {
	_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(uid), 0, 0)
	if now, _, _ := syscall.RawSyscall(syscall.SYS_SETFSUID, ^uintptr(0), 0, 0); uint32(now) != uid {
		return fmt.Errorf("setfsuid(%d): the kernel refuses", uid)
	}
	return nil
}

func client(tb testing.TB, dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	transport := &http.Transport{DialContext: dial, DisableCompression: true, MaxIdleConnsPerHost: 100}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       2 * time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Do sends one request on a connection of its own and reads the answer to its
// end. header's "Host" becomes the request's. What fails before there is a status
// fails the test.
func (s *Sidemirror) Do(method, path string, header http.Header) Answer {
	s.tb.Helper()
	c := Client(s.tb)
	defer c.CloseIdleConnections()
	return s.DoWith(c, method, path, header)
}

// Get is Do with GET.
func (s *Sidemirror) Get(path string, header http.Header) Answer {
	s.tb.Helper()
	return s.Do(http.MethodGet, path, header)
}

// DoWith is Do on client. It may be called from any goroutine.
func (s *Sidemirror) DoWith(client *http.Client, method, path string, header http.Header) Answer {
	s.tb.Helper()
	a := Fetch(client, method, s.URL()+path, header)
	if a.Status == 0 {
		s.tb.Errorf("%s %s: %v", method, path, a.Err)
	}
	return a
}

// Fetch sends one request and reads the answer to its end. Without an answer the
// Status is 0 and Err says why.
func Fetch(client *http.Client, method, url string, header http.Header) Answer {
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		return Answer{Err: err}
	}
	for name, values := range header {
		r.Header[name] = values
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
		r.Header.Del("Host")
	}
	resp, err := client.Do(r)
	if err != nil {
		return Answer{Err: err}
	}
	body, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err != nil {
		err = fmt.Errorf("read the body: %w", err)
	}
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: body, Err: err}
}
