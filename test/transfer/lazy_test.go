package transfer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// remoteReader reads a blob by ranges, as a snapshotter of lazy images does.
type remoteReader struct {
	r *rig
	b quirky.Blob
}

// ReadAt implements [io.ReaderAt].
func (s remoteReader) ReadAt(p []byte, at int64) (int, error) {
	last := min(at+int64(len(p)), int64(len(s.b.Bytes))) - 1
	a := s.r.Get(blobPath(s.b), http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", at, last)}})
	if a.Status != http.StatusPartialContent || a.Err != nil {
		return 0, fmt.Errorf("status %d, %w", a.Status, a.Err)
	}
	n := copy(p, a.Body)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// lazyLayer is a layer in the eStargz format, whose files can be read without the rest.
func lazyLayer(t *testing.T) (quirky.Blob, map[string][]byte) {
	t.Helper()
	files := map[string][]byte{}
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	for n := range 40 {
		name := fmt.Sprintf("file-%d", n)
		files[name] = quirky.Bytes(name, 500<<10)
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	made, err := estargz.Build(io.NewSectionReader(bytes.NewReader(plain.Bytes()), 0, int64(plain.Len())))
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	packed, err := io.ReadAll(made)
	if err != nil {
		t.Fatal(err)
	}
	return quirky.Blob{MediaType: v1.MediaTypeImageLayerGzip, Bytes: packed, Digest: digest.FromBytes(packed)}, files
}

// The reader is that of the stargz snapshotter: it reads the end of the layer, its table of
// contents, and the files that a container opens.
func TestALazyPullFetchesLittleMoreThanItReadsAndNothingTwice(t *testing.T) {
	layer, files := lazyLayer(t)
	u := newUpstream(t, 0, right, layer)
	r := start(t, nil, u)
	read := func() {
		t.Helper()
		opened, err := estargz.Open(io.NewSectionReader(remoteReader{r, layer}, 0, int64(len(layer.Bytes))))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"file-3", "file-17", "file-39"} {
			f, err := opened.OpenFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(files[name]))
			if _, err := f.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if !bytes.Equal(got, files[name]) {
				t.Errorf("%s is not what was packed", name)
			}
		}
	}
	read()
	if sent := u.sent.Load(); sent > int64(len(layer.Bytes))/4 {
		t.Errorf("%d bytes of %d were fetched for three files of forty", sent, len(layer.Bytes))
	}
	calls, _ := u.counts()
	read()
	if again, _ := u.counts(); again != calls {
		t.Errorf("reading the same again made %d requests upstream", again-calls)
	}
	r = r.again()
	read()
	u.sent.Store(0)
	r.whole("the whole afterwards", layer)
	r.keepsNothingWrong()
	if sent := u.sent.Load(); sent >= int64(len(layer.Bytes)) {
		t.Errorf("%d bytes of %d were fetched although some were there", sent, len(layer.Bytes))
	}
}

func TestRandomSmallRangesFetchAtMostFiveTimesWhatIsWanted(t *testing.T) {
	b := blob("random ranges", 200<<20)
	u := newUpstream(t, 0, right, b)
	r := start(t, nil, u)
	const length = 64 << 10
	random := rand.New(rand.NewPCG(1, 2))
	var firsts []int
	for range 60 {
		firsts = append(firsts, random.IntN(len(b.Bytes)-length))
	}
	read := func() {
		for _, first := range firsts {
			a := r.Get(blobPath(b), http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", first, first+length-1)}})
			if a.Status != http.StatusPartialContent || !bytes.Equal(a.Body, b.Bytes[first:first+length]) {
				t.Fatalf("the range at %d: status %d, %d bytes, %v", first, a.Status, len(a.Body), a.Err)
			}
		}
	}
	read()
	// What the upstream wrote may be in buffers: it counts more than what came.
	if sent := u.sent.Load(); sent > int64(5*length*len(firsts)) {
		t.Errorf("%d bytes were sent for %d", sent, length*len(firsts))
	}
	calls, _ := u.counts()
	read()
	if again, _ := u.counts(); again != calls {
		t.Errorf("the same ranges again made %d requests upstream", again-calls)
	}
}

// parts reads a multipart/byteranges answer: the bytes by Content-Range.
func parts(t *testing.T, a harness.Answer) map[string][]byte {
	t.Helper()
	kind, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/byteranges" || a.Status != http.StatusPartialContent || a.Err != nil {
		t.Fatalf("status %d, %q, %v, %v", a.Status, a.Header.Get("Content-Type"), err, a.Err)
	}
	found := map[string][]byte{}
	for m := multipart.NewReader(bytes.NewReader(a.Body), params["boundary"]); ; {
		p, err := m.NextPart()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if found[p.Header.Get("Content-Range")], err = io.ReadAll(p); err != nil {
			t.Fatal(err)
		}
	}
}

// Source: podman's zstd:chunked, which asks for what it lacks of a layer in one request.
func TestSeveralRangesInOneRequestAreOneMultipartAnswer(t *testing.T) {
	for what, by := range map[string]answer{
		"an upstream with ranges": right,
		"one without":             func(_ *upstream, c *call) { c.whole() },
	} {
		for _, cache := range []string{"", "none"} {
			t.Run(what+" cache="+cache, func(t *testing.T) {
				u := newUpstream(t, 0, by, big)
				r := start(t, func(h *harness.Options) {
					if cache != "" {
						h.Cache = cache
					}
				}, u)
				for _, state := range []string{"cold", "again", "warm"} {
					a := r.Get(blobPath(big), http.Header{"Range": {"bytes=0-99999,1000000-1099999"}})
					got := parts(t, a)
					for _, e := range [][2]int{{0, 99999}, {1000000, 1099999}} {
						name := fmt.Sprintf("bytes %d-%d/%d", e[0], e[1], large)
						if !bytes.Equal(got[name], big.Bytes[e[0]:e[1]+1]) {
							t.Errorf("%s: %q has %d bytes", state, name, len(got[name]))
						}
					}
					if len(got) != 2 {
						t.Errorf("%s: %d parts", state, len(got))
					}
					if state == "cold" && cache == "" && what == "an upstream with ranges" && u.sent.Load() > 1<<20 {
						t.Errorf("%d bytes were fetched for 200,000", u.sent.Load())
					}
					if state == "again" {
						r.whole("the whole", big)
					}
				}
			})
		}
	}
}

func TestOddSetsOfRangesAreAnsweredAsTheSpecificationSays(t *testing.T) {
	u := newUpstream(t, 0, right, big)
	r := start(t, nil, u)
	ask := func(spec string) harness.Answer {
		return r.Get(blobPath(big), http.Header{"Range": {spec}})
	}
	for _, state := range []string{"cold", "warm"} {
		for spec, want := range map[string]int{
			"bytes=0-0,-1":                               http.StatusPartialContent,
			fmt.Sprintf("bytes=0-9,%d-", large):          http.StatusPartialContent, // the second has nothing
			fmt.Sprintf("bytes=%d-,%d-", large, large+1): http.StatusRequestedRangeNotSatisfiable,
			"bytes=5-1,0-3":                              0, // malformed: ignored, or refused
			"bytes=0-3,x":                                0,
			"bytes=" + strings.TrimSuffix(strings.Repeat("0-1,", 5000), ","): 0, // bounded somehow
			"bytes=0-,0-,0-,0-,0-,0-": 0,
		} {
			a := ask(spec)
			if want != 0 && a.Status != want {
				t.Errorf("%s: %.60s: status %d, want %d", state, spec, a.Status, want)
			}
			if a.Status == http.StatusOK && !bytes.Equal(a.Body, big.Bytes) {
				t.Errorf("%s: %.60s: 200 with %d bytes", state, spec, len(a.Body))
			}
			if len(a.Body) > large+1<<20 {
				t.Errorf("%s: %.60s: %d bytes, more than the blob", state, spec, len(a.Body))
			}
		}
		r.whole("the whole", big)
	}
}
