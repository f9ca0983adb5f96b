package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestABlobIsTheSameReadInAnyPieces(t *testing.T) {
	b := newBlob(3*int64(len(page)) + 5)
	for _, piece := range []int{1 << 20, 4096, 17} {
		got, err := digestOf(struct{ io.Reader }{&piecewise{b.reader(), piece}})
		if err != nil || got != b.digest {
			t.Errorf("in pieces of %d it is %s (%v), want %s", piece, got, err, b.digest)
		}
	}
	if other := newBlob(b.size); other.digest == b.digest {
		t.Error("two blobs are alike: one would be warm by the other")
	}
}

type piecewise struct {
	r io.Reader
	n int
}

func (p *piecewise) Read(to []byte) (int, error) { return p.r.Read(to[:min(len(to), p.n)]) }

func TestTheUpstreamCountsBytesAndKeepsItsRate(t *testing.T) {
	img := newImage("v1", 1, 2*mib)
	u, err := newUpstream()
	if err != nil {
		t.Fatal(err)
	}
	defer u.close()
	u.add(img)
	u.network.rate.Store(8 * mib)
	s := &server{process: &process{name: "upstream"}, address: u.address}
	start := time.Now()
	if err := s.fetch(t.Context(), s.blob(img.layers[0]), img.layers[0]); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("2 MiB at 8 MiB/s took %v", took)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodHead, s.url("blobs", img.layers[0].digest), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if sent, requests := u.sent.Load(), u.requests.Load(); sent != 2*mib || requests != 2 {
		t.Errorf("a GET and a HEAD count as %d bytes and %d requests", sent, requests)
	}
}

// A client drops bodies unseen, but counts their bytes.
func TestABodyCutShortIsAnError(t *testing.T) {
	for _, tt := range []struct {
		answer, want string
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", "5 bytes before its end"},
		{"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone", "404 Not Found: gone"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "how long"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, _ = c.Read(make([]byte, 4096)) // or closing would reset
				_, err = io.WriteString(c, tt.answer)
				_ = c.Close()
			}
			done <- err
		}()
		_, err = order{Address: l.Addr().String(), Path: "/", Clients: 1, Times: 1}.do(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q gave %v, want %q", tt.answer, err, tt.want)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = l.Close()
	}
}

func TestEveryByteOfEveryClientCounts(t *testing.T) {
	img := newImage("v1", 1, 3*mib)
	u, err := newUpstream()
	if err != nil {
		t.Fatal(err)
	}
	defer u.close()
	u.add(img)
	s := &server{address: u.address}
	a, err := order{Address: u.address, Path: s.blob(img.layers[0]), Clients: 3, Times: 2}.do(context.Background())
	if err != nil || a.Bytes != 3*2*img.layers[0].size {
		t.Errorf("got %d bytes, %v", a.Bytes, err)
	}
	for _, one := range a.Each {
		if one.First <= 0 || one.Last < one.First || one.Gap <= 0 {
			t.Errorf("times that cannot be: %+v", one)
		}
	}
}

func TestTheMedianIsTheMiddle(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(tt.values); got != tt.want {
			t.Errorf("the median of %v is %v, want %v", tt.values, got, tt.want)
		}
	}
}

func TestATableIsAlignedAlsoWithLettersOfMoreBytes(t *testing.T) {
	var text strings.Builder
	table{title: "T", head: []string{"a", "b"}, rows: [][]string{{"µµ", "1"}, {"xyz", "2"}}}.write(&text, "##")
	want := "## T\n\n| a   | b |\n| --- | - |\n| µµ  | 1 |\n| xyz | 2 |\n\n"
	if text.String() != want {
		t.Errorf("got\n%s\nwant\n%s", text.String(), want)
	}
}

// The figures of a process must be its own: here those of sleep.
func TestAProcessIsAccountedFor(t *testing.T) {
	p, err := spawn("sleep", "/dev/null", nil, "sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.memory()
	if err != nil || m.RSS <= 0 || m.RSS < m.Anon+m.File {
		t.Errorf("memory is %+v, %v", m, err)
	}
	if got := fmt.Sprint(p.pids()); got != fmt.Sprintf("[%d]", p.cmd.Process.Pid) {
		t.Errorf("its processes are %s", got)
	}
	if _, err := p.cpu(); err != nil {
		t.Error(err)
	}
	p.stop()
	if _, err := p.cpu(); err == nil {
		t.Error("a process that is gone was accounted for")
	}
}

func TestOnlyADaemonThatServesIsReady(t *testing.T) {
	p, err := spawn("false", "/dev/null", nil, "/bin/false")
	if err != nil {
		t.Fatal(err)
	}
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.ready(t.Context(), address, "/"); err == nil || !strings.Contains(err.Error(), "ended before it served") {
		t.Errorf("got %v", err)
	}
}
