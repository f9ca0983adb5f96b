package traps

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// Source: harbor#23875.
func TestRangeIsHonouredOnAColdBlob(t *testing.T) {
	size := len(layer.Bytes)
	for _, x := range []struct {
		spec        string
		first, last int
	}{
		{"bytes=0-0", 0, 0},
		{"bytes=1000-1999", 1000, 1999},
		{"bytes=524288-", 524288, size - 1},
		{"bytes=-100", size - 100, size - 1},
		{fmt.Sprintf("bytes=%d-%d", size-10, size+1000), size - 10, size - 1},
	} {
		r := start(t, quirky.Options{}, nil)
		a := r.Get(blobPath(layer), http.Header{"Range": {x.spec}})
		r.status(x.spec, a, 206)
		if want := fmt.Sprintf("bytes %d-%d/%d", x.first, x.last, size); a.Header.Get("Content-Range") != want {
			t.Errorf("%s: Content-Range %q, want %q", x.spec, a.Header.Get("Content-Range"), want)
		}
		if !bytes.Equal(a.Body, layer.Bytes[x.first:x.last+1]) {
			t.Errorf("%s: %d bytes, not those asked for", x.spec, len(a.Body))
		}
		for _, q := range r.up.Requests(quirky.Registry, "GET", "/blobs/") {
			if q.Sent > int64(x.last-x.first+1) {
				t.Errorf("%s: the upstream sent %d bytes", x.spec, q.Sent)
			}
		}
	}
	r := start(t, quirky.Options{}, nil)
	a := r.Get(blobPath(layer), http.Header{"Range": {fmt.Sprintf("bytes=%d-", size)}})
	r.status("a range past the end", a, http.StatusRequestedRangeNotSatisfiable)
}

// Source: harbor#23875.
func TestWrongAnswerToARangeIsNotPassedOn(t *testing.T) {
	for what, blobs := range map[string]quirky.Blobs{"200 to a Range": {NoRange: true}, "another Content-Range": {WrongRange: true}} {
		r := start(t, quirky.Options{Blobs: blobs}, nil)
		a := r.Get(blobPath(layer), http.Header{"Range": {"bytes=1000-1999"}})
		switch {
		case a.Status == 206 && a.Err == nil:
			if !bytes.Equal(a.Body, layer.Bytes[1000:2000]) || a.Header.Get("Content-Range") != fmt.Sprintf("bytes 1000-1999/%d", len(layer.Bytes)) {
				t.Errorf("%s: 206 with other bytes than asked for", what)
			}
		case a.Status == 200 && a.Err == nil:
			r.whole(what, a, layer.Bytes)
		default:
			r.spoiled(what, a)
		}
	}
}

// Source: harbor#22609.
func TestHeadOnAColdBlobDownloadsNothing(t *testing.T) {
	relay, chunked := signed(), quirky.Options{}
	chunked.Blobs.Chunked = true
	for what, o := range map[string]quirky.Options{"plain": {}, "a store that refuses HEAD": relay, "chunked": chunked} {
		t.Run(what, func(t *testing.T) {
			r := start(t, o, nil)
			a := r.Do(http.MethodHead, blobPath(layer), nil)
			r.status("HEAD", a, 200)
			for header, want := range map[string]string{
				"Content-Length":        strconv.Itoa(len(layer.Bytes)),
				"Docker-Content-Digest": layer.Digest.String(),
				"Content-Type":          "application/octet-stream",
			} {
				if got := a.Header.Get(header); got != want {
					t.Errorf("%s: %q, want %q", header, got, want)
				}
			}
			for _, q := range r.up.All() {
				if q.Part != quirky.Token && q.Method == http.MethodGet && q.Sent > 1000 {
					t.Errorf("a HEAD made the upstream send %d bytes", q.Sent)
				}
			}
		})
	}
}

// resumed checks that the bytes of the broken answer were not fetched again.
func (r *rig) resumed(at int) {
	r.t.Helper()
	gets := r.up.Requests(quirky.Registry, "GET", "/blobs/")
	if len(gets) != 2 {
		r.t.Fatalf("%d requests for the blob upstream, want 2", len(gets))
	}
	if want := fmt.Sprintf("bytes=%d-", at); !strings.HasPrefix(gets[1].Header.Get("Range"), want) {
		r.t.Errorf("resumed with Range %q, want %q", gets[1].Header.Get("Range"), want)
	}
}

// Source: harbor#23600.
func TestCutAtSixtyPercentIsNotSplicedFromZero(t *testing.T) {
	at := len(layer.Bytes) * 6 / 10
	for _, kind := range []quirky.FaultKind{quirky.Cut, quirky.Reset} {
		for what, blobs := range map[string]quirky.Blobs{"that resumes": {}, "that ignores Range": {NoRange: true}} {
			t.Run(fmt.Sprint(kind, " by an upstream ", what), func(t *testing.T) {
				blobs.Fault = quirky.Fault{Kind: kind, At: at, Times: 1}
				r := start(t, quirky.Options{Blobs: blobs}, nil)
				r.whole("the layer", r.Get(blobPath(layer), nil), layer.Bytes)
				r.resumed(at)
			})
		}
	}
}

// Source: harbor#23600.
func TestAnotherBodyAfterTheCutIsNotSplicedOn(t *testing.T) {
	at := len(layer.Bytes) * 6 / 10
	for what, change := range map[string]func(*quirky.Blobs){
		"begins otherwise": func(b *quirky.Blobs) { b.NoRange, b.Fault = true, quirky.Fault{Kind: quirky.Flip, At: 10} },
		"another range":    func(b *quirky.Blobs) { b.WrongRange, b.Fault = true, quirky.Fault{} },
		"ends otherwise":   func(b *quirky.Blobs) { b.Fault = quirky.Fault{Kind: quirky.Flip, At: 10} },
	} {
		t.Run(what, func(t *testing.T) {
			gate := make(chan struct{})
			r := start(t, quirky.Options{Blobs: quirky.Blobs{Fault: quirky.Fault{Kind: quirky.Cut, At: at, Wait: gate}}}, nil)
			done := make(chan harness.Answer)
			go func() { done <- r.Get(blobPath(layer), nil) }()
			r.Eventually("the upstream is asked", func() bool { return r.up.Count(quirky.Registry, "GET", "/blobs/") > 0 })
			r.Eventually("it has sent its part", func() bool {
				return r.up.Requests(quirky.Registry, "GET", "/blobs/")[0].Sent >= int64(at)
			})
			r.up.Set(func(o *quirky.Options) { change(&o.Blobs) })
			close(gate)
			r.spoiled(what, <-done)
		})
	}
}

// Source: harbor#23600.
func TestUpstreamThatBreaksOffForEverIsGivenUp(t *testing.T) {
	r := start(t, quirky.Options{Blobs: quirky.Blobs{Fault: quirky.Fault{Kind: quirky.Reset, At: 0}}}, nil)
	r.spoiled("a layer that never comes", r.Get(blobPath(layer), nil))
	if n := r.up.Count(quirky.Registry, "GET", "/blobs/"); n > 10 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// Source: harbor#23600.
func TestUpstreamThatGivesAByteAnAnswerIsGivenUp(t *testing.T) {
	r := start(t, quirky.Options{Blobs: quirky.Blobs{Fault: quirky.Fault{Kind: quirky.Cut, At: 1}}}, nil)
	client := harness.Client(t)
	client.Timeout = 20 * time.Second
	r.spoiled("a layer that comes by single bytes", r.DoWith(client, "GET", blobPath(layer), nil))
	if n := r.up.Count(quirky.Registry, "GET", "/blobs/"); n > 100 {
		t.Errorf("one pull made %d requests upstream", n)
	}
}

// Source: kairos#4491.
func TestHTTP2ResetInTheMiddleOfALayerIsResumed(t *testing.T) {
	at := len(layer.Bytes) / 2
	o := quirky.Options{TLS: true, Blobs: quirky.Blobs{Fault: quirky.Fault{Kind: quirky.Reset, At: at, Times: 1}}}
	r := start(t, o, nil)
	r.whole("the layer", r.Get(blobPath(layer), nil), layer.Bytes)
	for _, q := range r.up.Requests(quirky.Registry, "GET", "/blobs/") {
		if q.Proto != "HTTP/2.0" {
			t.Errorf("the upstream was asked by %s", q.Proto)
		}
	}
	r.resumed(at)
}

// Source: crproxy.
func TestChunkedUpstreamWithoutLength(t *testing.T) {
	o := quirky.Options{
		Manifest: quirky.Manifest{Chunked: true, NoLength: true, NoDigest: true},
		Blobs:    quirky.Blobs{Chunked: true, NoDigest: true},
	}
	r := start(t, o, nil)
	r.pull()
	for _, x := range []struct {
		path string
		size int
	}{{path("manifests/v1"), len(image.Bytes)}, {blobPath(layer), len(layer.Bytes)}} {
		a := r.Do(http.MethodHead, x.path, nil)
		if a.Header.Get("Content-Length") != strconv.Itoa(x.size) || a.Header.Get("Docker-Content-Digest") == "" {
			t.Errorf("HEAD %s: header %v, want length %d and a digest", x.path, a.Header, x.size)
		}
	}
}

// Source: crproxy.
func TestChunkedBlobThatBreaksOffIsResumed(t *testing.T) {
	at := len(layer.Bytes) / 3
	r := start(t, quirky.Options{Blobs: quirky.Blobs{Chunked: true, Fault: quirky.Fault{Kind: quirky.Reset, At: at, Times: 1}}}, nil)
	r.whole("the layer", r.Get(blobPath(layer), nil), layer.Bytes)
	r.resumed(at)
}

// Source: harbor#22555.
func TestTamperedOrShortBlobNeitherEndsCleanlyNorStays(t *testing.T) {
	size := len(layer.Bytes)
	for _, fault := range []quirky.Fault{
		{Kind: quirky.Flip, At: 0}, {Kind: quirky.Flip, At: size / 2}, {Kind: quirky.Flip, At: size - 1},
		{Kind: quirky.Short, At: size / 2}, {Kind: quirky.Short, At: size - 1}, {Kind: quirky.Short, At: 0},
		{Kind: quirky.Extra},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprint(fault.Kind, " at ", fault.At, " chunked ", chunked), func(t *testing.T) {
				r := start(t, quirky.Options{Blobs: quirky.Blobs{Chunked: chunked, Fault: fault}}, nil)
				r.spoiled("the bad layer", r.Get(blobPath(layer), nil))
				r.up.Set(func(o *quirky.Options) { o.Blobs.Fault = quirky.Fault{} })
				r.whole("the layer afterwards", r.Get(blobPath(layer), nil), layer.Bytes)
			})
		}
	}
}

// Source: harbor#22555.
func TestSmallTamperedBlobIsRefused(t *testing.T) {
	small := image.Blobs[0]
	for _, kind := range []quirky.FaultKind{quirky.Flip, quirky.Short, quirky.Extra} {
		r := start(t, quirky.Options{Blobs: quirky.Blobs{Fault: quirky.Fault{Kind: kind, At: len(small.Bytes) - 1}}}, nil)
		r.spoiled(string(kind), r.Get(blobPath(small), nil))
	}
}

func TestGzipThatWasNotAskedForIsNotPassedOnAsTheBlob(t *testing.T) {
	r := start(t, quirky.Options{Blobs: quirky.Blobs{Gzip: true}}, nil)
	if a := r.Get(blobPath(layer), nil); a.Status == 200 && a.Err == nil {
		r.whole("the layer", a, layer.Bytes)
		if a.Header.Get("Content-Encoding") != "" {
			t.Errorf("Content-Encoding %q on bytes as they are", a.Header.Get("Content-Encoding"))
		}
	}
	for _, q := range r.up.Requests(quirky.Registry, "", "/blobs/") {
		if slices.Contains(q.Header.Values("Accept-Encoding"), "gzip") {
			t.Error("the upstream was asked for gzip")
		}
	}
}

func TestBlobWhoseUpstreamBreaksSeveralTimesIsStillWhole(t *testing.T) {
	r := start(t, quirky.Options{Blobs: quirky.Blobs{Fault: quirky.Fault{Kind: quirky.Reset, At: len(layer.Bytes) / 4, Times: 3}}}, nil)
	r.whole("the layer", r.Get(blobPath(layer), nil), layer.Bytes)
}

func TestSecondUpstreamTakesOverWhereTheFirstBreaksOff(t *testing.T) {
	second := quirky.New(t, quirky.Options{})
	second.Add(repo, "v1", image)
	o := quirky.Options{Blobs: quirky.Blobs{Fault: quirky.Fault{Kind: quirky.Reset, At: len(layer.Bytes) / 2}}}
	r := start(t, o, func(up *quirky.Server, h *harness.Options) {
		h.Registries[0].Upstreams = []string{up.URL(), second.URL()}
	})
	r.whole("the layer", r.Get(blobPath(layer), nil), layer.Bytes)
}

func TestSecondUpstreamServesWhatTheFirstLacks(t *testing.T) {
	second := quirky.New(t, quirky.Options{})
	second.Add("team/other", "v1", image)
	r := start(t, quirky.Options{}, func(up *quirky.Server, h *harness.Options) {
		h.Registries[0].Upstreams = []string{up.URL(), second.URL()}
	})
	r.whole("a manifest of the second", r.Get("/v2/team/other/manifests/v1?ns="+name, nil), image.Bytes)
	r.whole("a manifest of the first", r.Get(path("manifests/v1"), nil), image.Bytes)
	r.status("a manifest of neither", r.Get(path("manifests/v2"), nil), 404)
}
