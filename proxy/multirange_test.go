package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

// partsIn returns the parts of a multipart response, by their Content-Range.
func partsIn(t *testing.T, a got) (ranges []string, bodies [][]byte) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/byteranges" {
		t.Fatalf("Content-Type %q, %v", a.Header.Get("Content-Type"), err)
	}
	for r := multipart.NewReader(bytes.NewReader(a.body), params["boundary"]); ; {
		p, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return ranges, bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(p)
		if err != nil || p.Header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("a part of type %q, %v", p.Header.Get("Content-Type"), err)
		}
		ranges, bodies = append(ranges, p.Header.Get("Content-Range")), append(bodies, body)
	}
}

// podman's zstd:chunked and stargz ask for several ranges of a blob that is not stored.
func TestSeveralRangesOfAColdBlobAreAMultipartResponse(t *testing.T) {
	t.Parallel()
	content := make([]byte, 3<<20)
	for i := range content {
		content[i] = byte(i / 251)
	}
	path := "/v2/library/a/blobs/" + digest.FromBytes(content).String()
	for _, stores := range []bool{true, false} {
		var sent atomic.Int64
		h := func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(&counting{w, &sent}, r, "", time.Time{}, bytes.NewReader(content))
		}
		g := newRig(t, func(c *Config) {
			if stores {
				dir, err := cache.Open(t.TempDir(), cache.Limits{})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { dir.Close() })
				c.Cache = dir
			}
		}, h)
		for range 2 {
			a := g.do(t, "GET", path, "Range", "bytes=0-99999, 1000000-1099999,-5,9999999-")
			if a.err != nil || a.StatusCode != http.StatusPartialContent || a.Header.Get("Content-Length") != strconv.Itoa(len(a.body)) {
				t.Fatalf("stores %v: %d, %d bytes of %s, %v", stores, a.StatusCode, len(a.body), a.Header.Get("Content-Length"), a.err)
			}
			ranges, bodies := partsIn(t, a)
			size := len(content)
			want := []string{fmt.Sprintf("bytes 0-99999/%d", size), fmt.Sprintf("bytes 1000000-1099999/%d", size), fmt.Sprintf("bytes %d-%d/%d", size-5, size-1, size)}
			if !slices.Equal(ranges, want) || !bytes.Equal(slices.Concat(bodies...), slices.Concat(content[:100000], content[1000000:1100000], content[size-5:])) {
				t.Errorf("stores %v: %v, want %v, or other bytes", stores, ranges, want)
			}
		}
		if most := map[bool]int64{true: 1 << 20, false: 2 << 20}[stores]; sent.Load() > most {
			t.Errorf("stores %v: the upstream sent %d bytes", stores, sent.Load())
		}
		if a := g.do(t, "GET", path, "Range", "bytes=5-9,5-9"); a.StatusCode != http.StatusPartialContent || a.Header.Get("Content-Range") == "" || !bytes.Equal(a.body, content[5:10]) {
			t.Errorf("stores %v: one range twice: %d, %d bytes", stores, a.StatusCode, len(a.body))
		}
		if a := g.do(t, "GET", path, "Range", "bytes=9999999-,8888888-"); a.StatusCode != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("stores %v: nothing of both: %d", stores, a.StatusCode)
		}
		if a := g.do(t, "GET", path, "Range", "bytes="+strings.Repeat("0-0,", maxRanges)+"1-1"); a.StatusCode != http.StatusOK || !bytes.Equal(a.body, content) {
			t.Errorf("stores %v: too many: %d, %d bytes", stores, a.StatusCode, len(a.body))
		}
	}
}

// counting counts what is written.
type counting struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (c *counting) Write(b []byte) (int, error) {
	c.sent.Add(int64(len(b)))
	return c.ResponseWriter.Write(b)
}
