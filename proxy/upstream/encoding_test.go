package upstream

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// content is what the tests of this file compress.
var content = []byte(strings.Repeat("a layer that a server compressed on the way ", 5000))

func compressed(t *testing.T, open func(io.Writer) (io.WriteCloser, error), body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t *testing.T, body []byte) []byte {
	return compressed(t, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }, body)
}

// compressing serves body with a Content-Encoding, whatever is accepted, ranges and all.
func compressing(t *testing.T, encoding string, body []byte) *Upstream {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "identity" {
			t.Errorf("Accept-Encoding is %q", got)
		}
		w.Header()["Content-Encoding"] = strings.Split(encoding, "|")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
	return newUpstream(t, Config{URL: mustURL(s.URL)})
}

func TestContentThatIsCompressedUnaskedIsDecoded(t *testing.T) {
	flated := compressed(t, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) }, content)
	zlibbed := compressed(t, func(w io.Writer) (io.WriteCloser, error) { return zlib.NewWriter(w), nil }, content)
	for _, tt := range []struct {
		name, encoding string
		body           []byte
	}{
		{"gzip", "gzip", zipped(t, content)},
		{"its other name, in capitals", "X-GZIP", zipped(t, content)},
		{"deflate", "deflate", zlibbed},
		{"deflate without its header", "deflate", flated},
		{"twice in one header", "deflate, gzip", zipped(t, zlibbed)},
		{"twice in two headers", "gzip|identity|gzip", zipped(t, zipped(t, content))},
		{"labelled only", "gzip", content},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := compressing(t, tt.encoding, tt.body)
			for _, span := range []string{"", "bytes=100-199"} {
				r := anonymous("/v2/o/i/blobs/x")
				if span != "" {
					r.Header.Set("Range", span)
				}
				resp, err := u.Do(context.Background(), r)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(body, content) {
					t.Errorf("range %q: status %d, %d bytes, %v", span, resp.StatusCode, len(body), err)
				}
				if resp.Header.Get("Content-Encoding") != "" || resp.ContentLength >= 0 && resp.ContentLength != int64(len(content)) {
					t.Errorf("range %q: length %d, %v", span, resp.ContentLength, resp.Header)
				}
			}
			r := anonymous("/v2/o/i/blobs/x")
			r.Method = http.MethodHead
			resp, err := u.Do(context.Background(), r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.ContentLength >= 0 {
				t.Errorf("the length of the compressed content, %d, is taken for that of the content", resp.ContentLength)
			}
		})
	}
}

// Layers are often gzip themselves, and servers label them so. Only the digest tells.
func TestTheDigestTellsWhetherABlobMustBeDecoded(t *testing.T) {
	layer := zipped(t, content)
	broken := bytes.Clone(layer)
	broken[len(broken)/2] ^= 1
	for _, tt := range []struct {
		name, encoding string
		sent           []byte
		want           []byte // nil: neither what is sent nor what it decodes to has the digest
	}{
		{"compressed on the way", "gzip", zipped(t, content), content},
		{"a gzip layer compressed once more", "gzip", zipped(t, layer), layer},
		{"a gzip layer that is labelled", "gzip", layer, layer},
		{"a layer that is labelled and no gzip", "gzip", content, content},
		{"a zstd layer that is labelled", "zstd", []byte("\x28\xb5\x2f\xfd and so on"), []byte("\x28\xb5\x2f\xfd and so on")},
		{"more codings than are decoded", "gzip, gzip, gzip, gzip", layer, layer},
		{"neither", "gzip", zipped(t, []byte("another blob")), nil},
		{"neither, and unknown", "br", []byte("another blob"), nil},
		{"broken", "gzip", broken, nil},
		{"cut", "gzip", layer[:len(layer)/2], nil},
		{"with something after it", "gzip", append(zipped(t, content), "rest"...), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := compressing(t, tt.encoding, tt.sent)
			dgst := digest.FromBytes(tt.want)
			if tt.want == nil {
				dgst = digest.FromBytes(content)
			}
			for _, span := range []string{"", "bytes=1-3", ""} {
				r := anonymous("/v2/o/i/blobs/" + dgst.String())
				if span != "" {
					r.Header.Set("Range", span)
				}
				resp, err := u.Do(context.Background(), r)
				if tt.want == nil {
					if err == nil {
						resp.Body.Close()
					}
					if e := oci.AsError(err); err == nil || e.HTTPStatus() != http.StatusBadGateway || !strings.Contains(e.Message, "digest") {
						t.Errorf("range %q: %v", span, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				want := tt.want
				if resp.StatusCode == http.StatusPartialContent {
					want = want[1:4]
				}
				if err != nil || resp.StatusCode/100 != 2 || !bytes.Equal(body, want) || encoded(resp) {
					t.Errorf("range %q: status %d, %d bytes, %v, %v", span, resp.StatusCode, len(body), resp.Header, err)
				}
				if resp.ContentLength >= 0 && resp.ContentLength != int64(len(want)) {
					t.Errorf("range %q: a length of %d", span, resp.ContentLength)
				}
			}
		})
	}
}

func TestTheLengthOfALabelledBlobIsLearnedWithoutReadingIt(t *testing.T) {
	layer := zipped(t, content)
	var sent atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		if r.Header.Get("Range") == "" {
			sent.Add(1)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(layer))
	})
	r := anonymous("/v2/o/i/blobs/" + digest.FromBytes(layer).String())
	r.Method = http.MethodHead
	resp, err := newUpstream(t, Config{URL: mustURL(s.URL)}).Do(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if sent.Load() > 1 { // the HEAD itself
		t.Errorf("the blob was fetched %d times", sent.Load()-1)
	}
}

func TestContentThatCannotBeDecodedIsAnErrorBeforeItsFirstByte(t *testing.T) {
	for _, encoding := range []string{"br", "zstd", "gzip, br", "gzip, gzip, gzip, gzip", strings.Repeat("x", 1000)} {
		resp, err := compressing(t, encoding, content).Do(context.Background(), anonymous("/v2/o/i/blobs/x"))
		if err == nil {
			resp.Body.Close()
		}
		var e *oci.Error
		if !errors.As(err, &e) || e.HTTPStatus() != http.StatusBadGateway || !strings.Contains(e.Message, "compressed") || len(e.Message) > 200 {
			t.Errorf("%.40s: %v", encoding, err)
		}
	}
}

func TestCompressedContentThatBreaksOffIsAnError(t *testing.T) {
	whole := zipped(t, content)
	for _, n := range []int{3, 9, 20, len(whole) - 1} {
		resp, err := compressing(t, "gzip", whole[:n]).Do(context.Background(), anonymous("/v2/o/i/blobs/x"))
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%d bytes are taken for the whole of what %d hold", len(body), n)
		}
		resp.Body.Close()
	}
}

func TestAnEncodedRefusalKeepsItsStatus(t *testing.T) {
	for encoding, want := range map[string]string{"gzip": "why", "br": string(zipped(t, []byte("why")))} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", encoding)
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write(zipped(t, []byte("why")))
		})
		resp, err := newUpstream(t, Config{URL: mustURL(s.URL)}).Do(context.Background(), anonymous("/v2/o/i/blobs/x"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusForbidden || string(body) != want {
			t.Errorf("%s: %d, %q, %v", encoding, resp.StatusCode, body, err)
		}
	}
}

func TestA203IsA200(t *testing.T) {
	var asked atomic.Int32
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusNonAuthoritativeInfo)
	})
	resp, err := newUpstream(t, Config{URL: mustURL(s.URL)}).Do(context.Background(), anonymous("/v2/o/i/blobs/x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || asked.Load() != 1 {
		t.Errorf("%d after %d requests", resp.StatusCode, asked.Load())
	}
}
