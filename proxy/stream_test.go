package proxy

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// copyBuffer is about as much as is read at a time.
const copyBuffer = 64 << 10

// faulty is an upstream with one blob, which breaks off, lies and ignores ranges as
// its dice fall. Each answer's faults are drawn anew; after a while it is good.
type faulty struct {
	content []byte
	dice    *rand.Rand
	faults  int  // answers that may yet be faulty
	chunked bool // no lengths
	noRange bool
	evil    bool // it may send wrong bytes
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start, end := int64(0), int64(len(f.content))
	status := http.StatusOK
	if specs := parseRanges(r.Header, ""); len(specs) == 1 && !f.noRange {
		e, ok := specs[0].Of(end)
		if !ok {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", end))
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		start, end, status = e.Start, e.End, http.StatusPartialContent
		w.Header().Set("Content-Range", contentRange(e, int64(len(f.content))))
	}
	body := bytes.Clone(f.content[start:end])
	cut := len(body)
	if f.faults > 0 && len(body) > 0 {
		f.faults--
		switch f.dice.IntN(4) {
		case 0:
			cut = f.dice.IntN(len(body))
		case 1:
			if f.evil {
				body[f.dice.IntN(len(body))] ^= 1
			}
		}
	}
	if !f.chunked {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	if f.chunked {
		_ = http.NewResponseController(w).Flush()
	}
	_, _ = w.Write(body[:cut])
	if cut < len(body) {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// However upstreams break off, lie and ignore ranges, a client gets exactly the bytes
// it asked for or an answer that is not whole: never a wrong clean end.
func TestAnyInterleavingOfFaultsGivesExactBytesOrABreak(t *testing.T) {
	t.Parallel()
	dice := rand.New(rand.NewPCG(1, 2))
	whole := 0
	const rounds = 150
	for range rounds {
		content := make([]byte, dice.IntN(4*copyBuffer))
		for i := range content {
			content[i] = byte(dice.Uint32())
		}
		f := &faulty{content: content, dice: dice, faults: dice.IntN(4), chunked: dice.IntN(3) == 0, noRange: dice.IntN(3) == 0, evil: dice.IntN(3) == 0}
		g := newRig(t, nil, f.ServeHTTP)
		want, headers := content, []string(nil)
		if len(content) > 1 && dice.IntN(2) == 0 {
			first := dice.IntN(len(content))
			last := first + dice.IntN(len(content)-first)
			want, headers = content[first:last+1], []string{"Range", fmt.Sprintf("bytes=%d-%d", first, last)}
		}
		a := g.do(t, "GET", "/v2/library/a/blobs/"+digest.FromBytes(content).String(), headers...)
		if a.StatusCode == http.StatusOK {
			want = content // a server may ignore a range
		}
		ranged := a.StatusCode == http.StatusPartialContent
		if clean := a.err == nil && (a.StatusCode == http.StatusOK || ranged); clean && !bytes.Equal(a.body, want) && !(f.evil && ranged) {
			t.Fatalf("%d bytes, faults %d, chunked %v, noRange %v, evil %v: a clean end with wrong bytes: status %d, %d of %d", len(content), f.faults, f.chunked, f.noRange, f.evil, a.StatusCode, len(a.body), len(want))
		} else if clean {
			whole++
		}
	}
	if whole < rounds/2 {
		t.Errorf("only %d of %d pulls were whole", whole, rounds)
	}
}

func TestASmallWrongBlobIsFetchedFromAnotherUpstream(t *testing.T) {
	t.Parallel()
	content := []byte("foo")
	wrong := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "bar") }
	right := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }
	path := "/v2/library/a/blobs/" + fooDigest.String()
	if a := newRig(t, nil, wrong, right).do(t, "GET", path); a.err != nil || a.StatusCode != 200 || string(a.body) != "foo" {
		t.Errorf("%d %q %v", a.StatusCode, a.body, a.err)
	}
	if a := newRig(t, nil, wrong).do(t, "GET", path); a.StatusCode != http.StatusBadGateway || !strings.Contains(string(a.body), "does not match its digest") {
		t.Errorf("alone: %d %q %v", a.StatusCode, a.body, a.err)
	}
}

func TestTwoDifferentBodiesAreNeverSpliced(t *testing.T) { // harbor#23600
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789abcdef"), 3*copyBuffer/16)
	other := bytes.Clone(content)
	other[0] ^= 1
	answers := 0
	h := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		if answers++; answers == 1 {
			_, _ = w.Write(content[:2*copyBuffer])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(other) // knows no ranges, and its first bytes are others
	}
	a := newRig(t, nil, h).do(t, "GET", "/v2/library/a/blobs/"+digest.FromBytes(content).String())
	if a.err == nil {
		t.Errorf("a clean end after %d bytes", len(a.body))
	}
}

func TestAHeadOnABlobFetchesNone(t *testing.T) { // harbor#22609
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"HEAD is known": func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodHead {
				t.Errorf("%s %v", r.Method, r.Header)
			}
			w.Header().Set("Content-Length", "12345")
		},
		"HEAD is not known": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			if r.Header.Get("Range") != "bytes=0-0" {
				t.Errorf("%s %v", r.Method, r.Header)
			}
			w.Header().Set("Content-Range", "bytes 0-0/12345")
			w.WriteHeader(http.StatusPartialContent)
		},
		"HEAD without a length": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.Header().Set("Transfer-Encoding", "chunked")
				return
			}
			w.Header().Set("Content-Range", "bytes 0-0/12345")
			w.WriteHeader(http.StatusPartialContent)
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newRig(t, nil, h).do(t, "HEAD", "/v2/library/a/blobs/"+fooDigest.String())
			if a.StatusCode != 200 || a.ContentLength != 12345 || a.Header.Get("Docker-Content-Digest") != fooDigest.String() {
				t.Errorf("%d %v", a.StatusCode, a.Header)
			}
		})
	}
}
