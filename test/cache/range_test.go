package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// ranged fails the test unless a is what a Range may be answered with: the part that
// it says it is, all of it, or several such parts, to the byte.
func (r *rig) ranged(what string, a harness.Answer, whole []byte) {
	r.t.Helper()
	kind, params, _ := mime.ParseMediaType(a.Header.Get("Content-Type"))
	switch {
	case a.Err != nil:
		r.t.Errorf("%s: %v", what, a.Err)
	case a.Status == http.StatusOK:
		r.whole(what, a, whole)
	case a.Status == http.StatusPartialContent && kind == "multipart/byteranges":
		parts := multipart.NewReader(bytes.NewReader(a.Body), params["boundary"])
		for {
			p, err := parts.NextPart()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				r.t.Errorf("%s: %v", what, err)
				return
			}
			body, err := io.ReadAll(p)
			if err != nil || !isPart(p.Header.Get("Content-Range"), body, whole) {
				r.t.Errorf("%s: a part says %q and has %d other bytes, %v", what, p.Header.Get("Content-Range"), len(body), err)
			}
		}
	case a.Status == http.StatusPartialContent:
		if !isPart(a.Header.Get("Content-Range"), a.Body, whole) {
			r.t.Errorf("%s: it says %q and has %d other bytes", what, a.Header.Get("Content-Range"), len(a.Body))
		}
	case a.Status != http.StatusRequestedRangeNotSatisfiable:
		r.t.Errorf("%s: status %d", what, a.Status)
	}
}

// isPart reports whether body is the part of whole that a Content-Range says.
func isPart(contentRange string, body, whole []byte) bool {
	var first, last, total int
	if n, err := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &first, &last, &total); n != 3 || err != nil {
		return false
	}
	return total == len(whole) && first <= last && last < total && bytes.Equal(body, whole[first:last+1])
}

// Source: harbor#23875.
func TestRangeIsHonouredColdWhileItFillsAndFromTheCache(t *testing.T) {
	size := len(layer.Bytes)
	etag := `"` + layer.Digest.String() + `"`
	specs := []struct {
		header http.Header
		part   string // Content-Range; "" is the whole, "416" is nothing of it
	}{
		{http.Header{"Range": {"bytes=0-0"}}, fmt.Sprintf("bytes 0-0/%d", size)},
		{http.Header{"Range": {"bytes=1000-1999"}}, fmt.Sprintf("bytes 1000-1999/%d", size)},
		{http.Header{"Range": {"bytes=524288-"}}, fmt.Sprintf("bytes 524288-%d/%d", size-1, size)},
		{http.Header{"Range": {"bytes=0-"}}, fmt.Sprintf("bytes 0-%d/%d", size-1, size)},
		{http.Header{"Range": {"bytes=-100"}}, fmt.Sprintf("bytes %d-%d/%d", size-100, size-1, size)},
		{http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", size-10, size+1000)}}, fmt.Sprintf("bytes %d-%d/%d", size-10, size-1, size)},
		{http.Header{"Range": {fmt.Sprintf("bytes=%d-", size)}}, "416"},
		{http.Header{"Range": {"bytes=5-9"}, "If-Range": {etag}}, fmt.Sprintf("bytes 5-9/%d", size)},
		{http.Header{"Range": {"bytes=5-9"}, "If-Range": {`"sha256:something-else"`}}, ""},
	}
	check := func(r *rig, state string) {
		for _, s := range specs {
			a := r.Get(blobPath(layer), s.header)
			what := fmt.Sprint(state, " ", s.header)
			switch s.part {
			case "":
				r.whole(what, a, layer.Bytes)
			case "416":
				r.status(what, a, 416)
			default:
				r.status(what, a, 206)
				if a.Header.Get("Content-Range") != s.part {
					t.Errorf("%s: Content-Range %q, want %q", what, a.Header.Get("Content-Range"), s.part)
				}
				r.ranged(what, a, layer.Bytes)
			}
		}
	}
	t.Run("cold", func(t *testing.T) {
		for _, s := range specs {
			r := start(t, quirky.Options{}, nil)
			a := r.Get(blobPath(layer), s.header)
			r.ranged(fmt.Sprint("cold ", s.header), a, layer.Bytes)
			if got := a.Header.Get("Content-Range"); strings.HasPrefix(s.part, "bytes") && got != s.part {
				t.Errorf("cold %v: Content-Range %q, want %q", s.header, got, s.part)
			}
		}
	})
	t.Run("kept", func(t *testing.T) {
		r := start(t, quirky.Options{}, nil)
		r.pull()
		r.keeps(layer)
		r.up.Forget()
		check(r, "kept")
		r.askedNothing("a range of what is kept")
		a := r.Get(blobPath(layer), http.Header{"If-None-Match": {etag}})
		r.status("If-None-Match", a, http.StatusNotModified)
		r.ranged("two ranges", r.Get(blobPath(layer), http.Header{"Range": {"bytes=0-9,100-199"}}), layer.Bytes)
	})
}

// The last byte of a range waits until the whole blob is verified. The bytes before it do not wait,
// except those in a buffer.
//
// Source: harbor#23875.
func TestRangeOfWhatIsBeingFetchedComesFromTheSameTransfer(t *testing.T) {
	half := len(layer.Bytes) / 2
	gate := make(chan struct{})
	r := start(t, quirky.Options{Blobs: quirky.Blobs{Fault: quirky.Fault{At: half, Times: 1, Wait: gate}}}, nil)
	first, err := harness.Client(t).Get(r.URL() + blobPath(layer))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Body.Close()
	specs := []string{
		"bytes=0-65535", "bytes=1000-200000", fmt.Sprintf("bytes=%d-%d", half-50000, half+50),
		fmt.Sprintf("bytes=%d-", half+1000), "bytes=-1000",
	}
	waiting := make(chan harness.Answer, len(specs))
	early := make(chan struct{}, len(specs))
	for _, spec := range specs {
		go func() { waiting <- r.inSteps(blobPath(layer), spec, half, func() { early <- struct{}{} }) }()
	}
	for range 3 { // of those that begin before the half
		<-early
	}
	close(gate)
	for range specs {
		a := <-waiting
		r.status("a range of what is being fetched", a, 206)
		r.ranged(a.Header.Get("Content-Range"), a, layer.Bytes)
	}
	r.asked("", "/blobs/", 1)
}

// inSteps asks for a range, and calls early once it has all of it that is before the
// offset until, less the last byte.
func (r *rig) inSteps(path, spec string, until int, early func()) harness.Answer {
	request, err := http.NewRequest(http.MethodGet, r.URL()+path, nil)
	if err != nil {
		return harness.Answer{Err: err}
	}
	request.Header.Set("Range", spec)
	resp, err := harness.Client(r.t).Do(request)
	if err != nil {
		return harness.Answer{Err: err}
	}
	defer resp.Body.Close()
	a := harness.Answer{Status: resp.StatusCode, Header: resp.Header}
	var from, to int
	if _, a.Err = fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/", &from, &to); a.Err == nil && from < until {
		a.Body = make([]byte, min(to, until)-from)
		if _, a.Err = io.ReadFull(resp.Body, a.Body); a.Err == nil {
			early()
		}
	}
	if a.Err == nil {
		var rest []byte
		rest, a.Err = io.ReadAll(resp.Body)
		a.Body = append(a.Body, rest...)
	}
	return a
}

// Source: harbor#23875.
func TestShortRangeOfAColdBlobDoesNotFetchAllOfIt(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	a := r.Get(blobPath(layer), http.Header{"Range": {"bytes=1000-1999"}})
	r.status("a short range", a, 206)
	for _, q := range r.up.Requests(quirky.Registry, "GET", "/blobs/") {
		if q.Sent > 1000 {
			t.Errorf("the upstream sent %d bytes for 1000", q.Sent)
		}
	}
}
