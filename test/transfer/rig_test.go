// Package transfer tests how a blob's bytes come in when an upstream lies, breaks off, changes its
// mind or is slow, and when the disk or the process fails: the real binary in front of upstreams
// with faults, with blobs that are large enough to be fetched over several connections.
//
// In every test, what ends cleanly must be right to the byte.
package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	name = "r.test"
	repo = "team/app"

	// large is the size of a blob that is worth several connections, and not a round number.
	large = 40<<20 + 12345

	// slow is what an upstream gives one connection, in bytes a second, in tests in which several
	// together must be faster than one.
	slow = 24 << 20
)

// big is the blob of most tests, other one of the same size.
var (
	big   = blob("big", large)
	other = blob("other", large)
)

func blob(seed string, size int) quirky.Blob {
	b := quirky.Bytes(seed, size)
	return quirky.Blob{MediaType: v1.MediaTypeImageLayer, Bytes: b, Digest: digest.FromBytes(b)}
}

// holding is a manifest that makes the registry have blobs. No test asks for it.
func holding(blobs ...quirky.Blob) quirky.Image {
	text := "{"
	for _, b := range blobs {
		text += b.Digest.String()
	}
	i := quirky.Raw(v1.MediaTypeImageManifest, []byte(text))
	i.Blobs = blobs
	return i
}

func blobPath(b quirky.Blob) string {
	return "/v2/" + repo + "/blobs/" + b.Digest.String() + "?ns=" + name
}

// call is one GET for a blob, as the upstream sees it.
type call struct {
	w    http.ResponseWriter
	r    *http.Request
	u    *upstream
	over func() // it is not under way any more

	number      int // from 1, in the order in which they came
	at          int // how many are under way, this one included
	blob        quirky.Blob
	first, last int  // the range that is asked for, both included
	ranged      bool // it is a range
}

// answer serves one call.
type answer func(u *upstream, c *call)

// upstream is a registry whose blobs are served by answer.
type upstream struct {
	*quirky.Server
	t      *testing.T
	answer answer
	pace   int // bytes a second for each connection; 0: as many as there are

	sent atomic.Int64 // bytes of blobs

	mu    sync.Mutex
	calls int
	looks int // of them, those that compare it with another upstream, which come if it was late
	now   int
	most  int // at once
	blobs map[string]quirky.Blob
}

func newUpstream(t *testing.T, pace int, by answer, blobs ...quirky.Blob) *upstream {
	t.Helper()
	u := &upstream{t: t, answer: by, pace: pace, blobs: map[string]quirky.Blob{}}
	u.Server = quirky.New(t, quirky.Options{Intercept: u.intercept})
	u.Add(repo, "v1", holding(blobs...))
	for _, b := range blobs {
		u.blobs[b.Digest.String()] = b
	}
	return u
}

func (u *upstream) intercept(part quirky.Part, w http.ResponseWriter, r *http.Request) bool {
	_, last, ok := strings.Cut(r.URL.Path, "/blobs/")
	b, known := u.blobs[last]
	if part != quirky.Registry || r.Method != http.MethodGet || !ok || !known {
		return false
	}
	c := newCall(w, r, u, b)
	u.mu.Lock()
	u.calls++
	if asked := r.Header.Get("Range"); asked == "bytes=0-0" || asked == "bytes=0-1048575" {
		u.looks++
	}
	u.now++
	u.most = max(u.most, u.now)
	c.number, c.at = u.calls, u.now
	by := u.answer
	u.mu.Unlock()
	c.over = sync.OnceFunc(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.now--
	})
	defer c.over()
	if c.first >= len(b.Bytes) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", len(b.Bytes)))
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return true
	}
	by(u, c)
	return true
}

func newCall(w http.ResponseWriter, r *http.Request, u *upstream, b quirky.Blob) *call {
	c := &call{w: w, r: r, u: u, over: func() {}, blob: b, last: len(b.Bytes) - 1}
	if spec := regexp.MustCompile(`^bytes=(\d+)-(\d*)$`).FindStringSubmatch(r.Header.Get("Range")); spec != nil {
		c.ranged = true
		c.first, _ = strconv.Atoi(spec[1])
		if spec[2] != "" {
			last, _ := strconv.Atoi(spec[2])
			c.last = min(c.last, last)
		}
	}
	return c
}

// counts returns how many blob requests came, and how many at once at most.
func (u *upstream) counts() (calls, most int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.calls, u.most
}

// fetches returns how many blob requests came to fetch the blob.
func (u *upstream) fetches() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.calls - u.looks
}

// wanted is the part of the blob that is asked for.
func (c *call) wanted() []byte { return c.blob.Bytes[c.first : c.last+1] }

// header writes the header of a right answer, after change has changed it.
func (c *call) header(change func(h http.Header)) {
	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Accept-Ranges", "bytes")
	h.Set("ETag", strconv.Quote(c.blob.Digest.String()))
	h.Set("Content-Length", strconv.Itoa(c.last+1-c.first))
	status := http.StatusOK
	if c.ranged {
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", c.first, c.last, len(c.blob.Bytes)))
	}
	if change != nil {
		change(h)
	}
	c.w.WriteHeader(status)
}

// body writes part, at the pace of one connection, until the client leaves.
func (c *call) body(part []byte) bool {
	const chunk = 128 << 10
	began := time.Now()
	for sent := 0; sent < len(part); {
		n := min(chunk, len(part)-sent)
		if _, err := c.w.Write(part[sent : sent+n]); err != nil {
			return false
		}
		sent += n
		c.u.sent.Add(int64(n))
		if c.u.pace > 0 {
			time.Sleep(time.Until(began.Add(time.Duration(sent) * time.Second / time.Duration(c.u.pace))))
		}
	}
	return true
}

// right answers as it should be.
func right(_ *upstream, c *call) {
	c.header(nil)
	c.body(c.wanted())
}

// whole sends all of the blob, as a server that knows no ranges.
func (c *call) whole() {
	c.ranged, c.first, c.last = false, 0, len(c.blob.Bytes)-1
	c.header(func(h http.Header) { h.Del("Accept-Ranges") })
	c.body(c.wanted())
}

// cut breaks the connection.
func (c *call) cut() {
	c.over()
	conn, _, err := http.NewResponseController(c.w).Hijack()
	if err == nil {
		conn.Close()
	}
}

// rig is a daemon in front of upstreams.
type rig struct {
	*harness.Sidemirror
	t       *testing.T
	options harness.Options
}

// start runs a daemon in front of ups. change, if not nil, sees its options first.
func start(t *testing.T, change func(h *harness.Options), ups ...*upstream) *rig {
	t.Helper()
	h := harness.Options{Registries: []harness.Registry{{Name: name}}, Cache: filepath.Join(t.TempDir(), "cache")}
	for _, u := range ups {
		h.Registries[0].Upstreams = append(h.Registries[0].Upstreams, u.URL())
	}
	if change != nil {
		change(&h)
	}
	return &rig{harness.Start(t, h), t, h}
}

// again stops the daemon and starts another on the same folder.
func (r *rig) again() *rig {
	r.t.Helper()
	r.Stop()
	return &rig{harness.Start(r.t, r.options), r.t, r.options}
}

// get asks for a blob as an engine does: the whole, by one connection.
func (r *rig) get(b quirky.Blob) harness.Answer {
	r.t.Helper()
	return r.Get(blobPath(b), nil)
}

// pieces asks for a blob as containerd does that fetches in parallel: n pieces at once. It returns
// those that are wrong, and how many did not come whole.
func (r *rig) pieces(b quirky.Blob, n int) (broken int) {
	r.t.Helper()
	size := (len(b.Bytes) + n - 1) / n
	var mu sync.Mutex
	harness.Together(n, func(i int) {
		first, last := i*size, min((i+1)*size, len(b.Bytes))-1
		a := harness.Fetch(harness.Client(r.t), "GET", r.URL()+blobPath(b), http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", first, last)}})
		if a.Status == http.StatusPartialContent && a.Err == nil {
			if !bytes.Equal(a.Body, b.Bytes[first:last+1]) {
				r.t.Errorf("piece %d of %d: %d bytes that are not the blob's", i, n, len(a.Body))
			}
			return
		}
		mu.Lock()
		defer mu.Unlock()
		broken++
	})
	return broken
}

// whole fails the test unless a client gets b, to the byte.
func (r *rig) whole(what string, b quirky.Blob) {
	r.t.Helper()
	r.get(b).Whole(r.t, what, b.Bytes)
}

// neverWrong fails the test if what ended cleanly is not b.
func (r *rig) neverWrong(what string, a harness.Answer, b quirky.Blob) {
	r.t.Helper()
	if a.Status < 400 && a.Err == nil && !bytes.Equal(a.Body, b.Bytes) {
		r.t.Errorf("%s: status %d and a clean end of %d bytes, which are not the blob", what, a.Status, len(a.Body))
	}
}

// keepsNothingWrong fails the test if a blob in the cache does not have its digest.
func (r *rig) keepsNothingWrong() { keepsNothingWrong(r.t, r.options.Cache) }

func keepsNothingWrong(t *testing.T, folder string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(folder, "blobs"), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() || len(d.Name()) != digest.Canonical.Size()*2 {
			return err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) { // it was evicted meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		sum := digest.Canonical.Hash()
		if _, err := io.Copy(sum, f); err != nil {
			return err
		}
		if got := digest.NewDigest(digest.Canonical, sum); got.Encoded() != d.Name() {
			t.Errorf("the cache has %s under the name %s", got, d.Name())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// repair makes by answer from now on.
func (u *upstream) repair(by answer) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer = by
}

// counter counts by name.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func newCounter() *counter { return &counter{n: map[string]int{}} }

func (c *counter) add(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[name]++
	return c.n[name]
}
