package traps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// readAll reads until the other end closes, 3 s at most.
func readAll(c net.Conn) (text string, closed bool) {
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
	var b bytes.Buffer
	_, err := io.Copy(&b, c)
	return b.String(), !errors.Is(err, os.ErrDeadlineExceeded)
}

// idle opens n connections, writes text on each, and closes them when the test ends.
func idle(t *testing.T, address, text string, n int) []net.Conn {
	t.Helper()
	all := make([]net.Conn, n)
	for i := range all {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		all[i] = c
	}
	return all
}

func TestSlowHeadersAreCutAndHarmNoOtherClient(t *testing.T) {
	t.Parallel() // it waits more than it works
	r := start(t, quirky.Options{}, nil)
	slow := idle(t, r.Address(), "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-", 100)
	r.pull()
	for _, c := range slow {
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a connection without whole headers stays open")
		}
	}
}

func TestIdleConnectionsHarmNoEngine(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	dial := harness.DialAs(t, harness.Untrusted)
	for i := range 10000 {
		c, err := dial(context.Background(), "tcp", r.Address())
		if err != nil {
			break // refused, which is a bound too
		}
		t.Cleanup(func() { c.Close() })
		if i%1000 == 0 {
			r.pull()
		}
	}
	r.pull()
}

func TestHeaderOfAMebibyteIsRefused(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	for _, text := range []string{
		"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Big: " + strings.Repeat("x", 1<<20),
		"GET /v2/" + strings.Repeat("x", 1<<20),
		"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("A: b\r\n", 1<<18),
	} {
		c, err := net.Dial("tcp", r.Address())
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(c, text+"\r\n\r\n")
		answer, closed := readAll(c)
		c.Close()
		if !closed || strings.Contains(answer, " 200 ") || answer == "" && err == nil {
			t.Errorf("%.40q…: answer %.40q, closed %v, %v", text, answer, closed, err)
		}
	}
	r.pull()
}

func TestSlowReadersDelayNoOtherClientAndTakeNoMemory(t *testing.T) {
	big := quirky.NewImage(false, "big", 32<<20)
	r := start(t, quirky.Options{}, uncached)
	r.up.Add("team/big", "v1", big)
	before := residentKiB(t, r.PID())
	// They ask for 32 MiB each and read no more than that the response has begun.
	large := fmt.Sprintf("/v2/team/big/blobs/%s?ns=%s", big.Blobs[1].Digest, name)
	for _, c := range idle(t, r.Address(), "GET "+large+" HTTP/1.1\r\nHost: localhost\r\n\r\n", 20) {
		begun := make([]byte, len("HTTP/1.1 200"))
		if _, err := io.ReadFull(c, begun); err != nil || string(begun) != "HTTP/1.1 200" {
			t.Fatalf("a response begins with %q, %v", begun, err)
		}
	}
	r.pull()
	r.whole("the blob that they ask for", r.Get(large, nil), big.Blobs[1].Bytes)
	if grown := residentKiB(t, r.PID()) - before; grown > 128<<10 {
		t.Errorf("20 readers who do not read took %d MiB", grown>>10)
	}
}

// residentKiB is the memory that a process has in use.
func residentKiB(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}

func TestClientsThatLeaveInTheMiddleLeaveNothingBehind(t *testing.T) {
	r := start(t, quirky.Options{Blobs: quirky.Blobs{Fault: quirky.Fault{Kind: quirky.Stall, At: 1000}}}, nil)
	r.pull404() // warm: whatever is opened once is open
	before := r.OpenFiles()
	for _, c := range idle(t, r.Address(), fmt.Sprintf("GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", blobPath(layer)), 50) {
		r.Eventually("the upstream is asked", func() bool { return r.up.Count(quirky.Registry, "GET", "/blobs/") > 0 })
		c.Close()
	}
	r.Eventually("the upstream's connections are let go", func() bool {
		for _, q := range r.up.Requests(quirky.Registry, "GET", "/blobs/") {
			if !q.Done {
				return false
			}
		}
		return r.OpenFiles() <= before+20 // a few connections may be kept for the next request
	})
}

// pull404 asks for what is not there.
func (r *rig) pull404() { r.status("absent", r.Get(path("manifests/absent"), nil), 404) }

func TestKilledDaemonRefusesAtOnceAndStartsAgainOnItsAddress(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	r.pull()
	r.Kill()
	if a := harness.Fetch(harness.Client(t), "GET", r.URL()+path("manifests/v1"), nil); !errors.Is(a.Err, syscall.ECONNREFUSED) {
		t.Errorf("a killed daemon gives status %d and %v, want a refused connection", a.Status, a.Err)
	}
	again := harness.Start(t, harness.Options{
		Listen: []string{r.Address()}, Registries: []harness.Registry{{Name: name, Upstreams: []string{r.up.URL()}}},
	})
	(&rig{Sidemirror: again, up: r.up, t: t}).pull()
}
