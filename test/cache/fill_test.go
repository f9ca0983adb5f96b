package cache

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// signed is an upstream whose blobs are behind URLs good for one GET.
func signed() quirky.Options {
	return quirky.Options{Blobs: quirky.Blobs{Redirect: http.StatusTemporaryRedirect, OneUse: true, RefuseAuthorization: true, RefuseHEAD: true, NoDigest: true}}
}

// Source: rpardini/docker-registry-proxy#26.
func TestSignedURLIsNotUsedAgainForWhatTheCacheHasLost(t *testing.T) {
	r := start(t, signed(), nil)
	r.pull()
	r.keeps(image.Blobs...)
	r.lose(layer.Digest)
	r.whole("the layer again", r.Get(blobPath(layer), nil), layer.Bytes)
	r.asked("GET", "/blobs/"+layer.Digest.String(), 2)
	if n := len(r.up.Requests(quirky.BlobStore, "GET", layer.Digest.String())); n != 2 {
		t.Errorf("%d requests for the layer came to the store, want 2", n)
	}
}

// Source: rpardini/docker-registry-proxy#26.
func TestSignedURLIsNotUsedAgainToResume(t *testing.T) {
	o := signed()
	o.Blobs.Fault = quirky.Fault{Kind: quirky.Cut, At: len(layer.Bytes) / 2, Times: 1}
	r := start(t, o, nil)
	r.whole("the layer", r.Get(blobPath(layer), nil), layer.Bytes)
	r.keeps(layer)
	for _, q := range r.up.Requests(quirky.BlobStore, "", "") {
		if q.Status >= 400 {
			t.Errorf("the store refused %s %s with %d", q.Method, q.Path, q.Status)
		}
	}
}

// Source: harbor#22609.
func TestHeadOnAColdBlobNeitherDownloadsNorKeepsIt(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	r.status("HEAD", r.Do("HEAD", blobPath(layer), nil), 200)
	r.asked("GET", "/blobs/", 0)
	r.keepsNothingOf("a blob that only HEAD asked for", layer.Digest)
	r.whole("the layer", r.Get(blobPath(layer), nil), layer.Bytes)
	r.keeps(layer)
	r.up.Forget()
	a := r.Do("HEAD", blobPath(layer), nil)
	r.status("HEAD of what is kept", a, 200)
	if a.Header.Get("Content-Length") != fmt.Sprint(len(layer.Bytes)) || a.Header.Get("Docker-Content-Digest") != layer.Digest.String() {
		t.Errorf("HEAD of what is kept: header %v", a.Header)
	}
	r.askedNothing("a HEAD of what is kept")
}

// Source: harbor#23600.
func TestWhatWasCutAtSixtyPercentIsKeptWhole(t *testing.T) {
	at := len(layer.Bytes) * 6 / 10
	for _, kind := range []quirky.FaultKind{quirky.Cut, quirky.Reset} {
		for what, blobs := range map[string]quirky.Blobs{"resumes": {}, "ignores Range": {NoRange: true}, "says no length": {Chunked: true}} {
			t.Run(fmt.Sprint(kind, ", upstream ", what), func(t *testing.T) {
				blobs.Fault = quirky.Fault{Kind: kind, At: at, Times: 1}
				r := start(t, quirky.Options{Blobs: blobs}, nil)
				r.whole("the layer", r.Get(blobPath(layer), nil), layer.Bytes)
				r.keeps(layer)
				r.up.Forget()
				r.whole("the layer from the cache", r.Get(blobPath(layer), nil), layer.Bytes)
				r.asked("GET", "/blobs/", 0)
			})
		}
	}
}

// Source: harbor#23600.
func TestAnotherBodyAfterTheCutIsNeitherSplicedNorKept(t *testing.T) {
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
			r.Eventually("the upstream has sent its part", func() bool {
				gets := r.up.Requests(quirky.Registry, "GET", "/blobs/")
				return len(gets) > 0 && gets[0].Sent >= int64(at)
			})
			r.up.Set(func(o *quirky.Options) { change(&o.Blobs) })
			close(gate)
			r.spoiled(what, <-done)
			r.keepsNothingOf("a layer of two bodies", layer.Digest)
		})
	}
}

// Source: kairos#4491.
func TestLayerResetOnHTTP2IsKeptWhole(t *testing.T) {
	o := quirky.Options{TLS: true, Blobs: quirky.Blobs{Fault: quirky.Fault{Kind: quirky.Reset, At: len(layer.Bytes) / 2, Times: 1}}}
	r := start(t, o, nil)
	r.whole("the layer", r.Get(blobPath(layer), nil), layer.Bytes)
	r.keeps(layer)
	gets := r.up.Requests(quirky.Registry, "GET", "/blobs/")
	if len(gets) != 2 || gets[0].Proto != "HTTP/2.0" {
		t.Errorf("the upstream was asked %d times, by %s; want 2, by HTTP/2.0", len(gets), gets[0].Proto)
	}
}

// Source: harbor#22555.
func TestTamperedOrShortBlobDoesNotStay(t *testing.T) {
	size := len(layer.Bytes)
	for _, fault := range []quirky.Fault{
		{Kind: quirky.Flip, At: 0}, {Kind: quirky.Flip, At: size - 1},
		{Kind: quirky.Short, At: size / 2}, {Kind: quirky.Short, At: size - 1}, {Kind: quirky.Short, At: 0},
		{Kind: quirky.Extra},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprint(fault.Kind, " at ", fault.At, " chunked ", chunked), func(t *testing.T) {
				r := start(t, quirky.Options{Blobs: quirky.Blobs{Chunked: chunked, Fault: fault}}, nil)
				harness.Together(3, func(int) { r.spoiled("the bad layer", r.Get(blobPath(layer), nil)) })
				r.keepsNothingOf("a bad layer", layer.Digest)
				r.up.Set(func(o *quirky.Options) { o.Blobs.Fault = quirky.Fault{} })
				r.whole("the layer afterwards", r.Get(blobPath(layer), nil), layer.Bytes)
				r.keeps(layer)
			})
		}
	}
}

// Source: harbor#22555.
func TestManifestThatIsNotItsDigestDoesNotStay(t *testing.T) {
	for _, fault := range []quirky.Fault{{Kind: quirky.Flip, At: 20}, {Kind: quirky.Short, At: 50}, {Kind: quirky.Extra}} {
		r := start(t, quirky.Options{Manifest: quirky.Manifest{Fault: fault}}, nil)
		r.status(string(fault.Kind)+" by digest", r.Get(byDigest(), nil), 502)
		r.status(string(fault.Kind)+" by tag", r.Get(byTag(), nil), 502)
		if found := content(t, r.folder, nil); len(found) > 0 {
			t.Errorf("%s: kept %v", fault.Kind, found)
		}
		r.up.Set(func(o *quirky.Options) { o.Manifest.Fault = quirky.Fault{} })
		r.whole("the manifest afterwards", r.Get(byTag(), nil), image.Bytes)
	}
}

// Source: harbor#22555.
func TestWhatRotsOnDiskAfterwardsIsNotAnsweredAsAManifest(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	r.pull()
	next := r.restart(nil) // what is in memory is not asked of the disk
	spoil(t, content(t, r.folder, nil)[image.Digest])
	next.whole("the manifest", next.Get(byDigest(), nil), image.Bytes)
}

// Source: zot#4323 and harbor#22570.
func TestAHundredClientsMakeOneTransferAndNoneWaitsForItsEnd(t *testing.T) {
	const clients = 100
	half := len(layer.Bytes) / 2
	gate := make(chan struct{})
	r := start(t, quirky.Options{Blobs: quirky.Blobs{Fault: quirky.Fault{At: half, Times: 1, Wait: gate}}}, nil)
	var early atomic.Int32
	all := make(chan struct{})
	go func() {
		defer close(all)
		harness.Together(clients, func(int) {
			resp, err := harness.Client(t).Get(r.URL() + blobPath(layer))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			// All that the upstream has sent, except what may be in a buffer on the way.
			first := make([]byte, half-(128<<10))
			if _, err := io.ReadFull(resp.Body, first); err != nil {
				t.Error(err)
				return
			}
			early.Add(1)
			if !sameAs(io.MultiReader(bytes.NewReader(first), resp.Body), layer.Digest) {
				t.Error("a client got other bytes")
			}
		})
	}()
	r.Eventually("every client has what there is, while the upstream has not finished", func() bool { return early.Load() == clients })
	close(gate)
	<-all
	r.asked("", "/blobs/", 1)
	r.keeps(layer)
}

// Source: zot#2416.
func TestSlowFirstClientDelaysNoOtherClient(t *testing.T) {
	// More than the buffers of a connection hold, on both sides of it.
	big := quirky.NewImage(false, "slow", 24<<20)
	r := start(t, quirky.Options{}, nil)
	r.up.Add(repo, "big", big)
	b := big.Blobs[1]
	slow, err := net.Dial("tcp", r.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if err := slow.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(slow, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", blobPath(b))
	if line, err := bufio.NewReaderSize(slow, 16).ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
		t.Fatalf("the slow client got %q, %v", line, err)
	}
	// It reads nothing more: a client that waited for it would wait for ever.
	harness.Together(4, func(int) { r.whole("the layer", r.Get(blobPath(b), nil), b.Bytes) })
	r.asked("", "/blobs/", 1)
	r.keeps(b)
}

func TestFirstClientThatLeavesTakesTheLayerFromNoOther(t *testing.T) {
	gate := make(chan struct{})
	r := start(t, quirky.Options{Blobs: quirky.Blobs{Fault: quirky.Fault{At: 300 << 10, Times: 1, Wait: gate}}}, nil)
	first, err := harness.Client(t).Get(r.URL() + blobPath(layer))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan harness.Answer)
	second, err := harness.Client(t).Get(r.URL() + blobPath(layer))
	if err != nil {
		t.Fatal(err)
	}
	first.Body.Close()
	go func() {
		body, err := io.ReadAll(second.Body)
		second.Body.Close()
		done <- harness.Answer{Status: second.StatusCode, Body: body, Err: err}
	}()
	close(gate)
	r.whole("the second client", <-done, layer.Bytes)
	r.asked("", "/blobs/", 1)
	r.keeps(layer)
}

// Source: crproxy.
func TestErrorBodyIsNotKeptUnderATag(t *testing.T) {
	page := func(status int, contentType, body string) func(quirky.Part, http.ResponseWriter, *http.Request) bool {
		return func(_ quirky.Part, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	const oci = `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`
	for what, bad := range map[string]func(quirky.Part, http.ResponseWriter, *http.Request) bool{
		"a portal's page":      page(200, "text/html", "<html>Please sign in</html>"),
		"an error as 200":      page(200, "application/json", oci),
		"the same, well typed": page(200, image.MediaType, oci),
		"an empty 200":         page(200, image.MediaType, ""),
		"404":                  page(404, "application/json", oci),
		"503":                  page(503, "text/html", "<html>Please wait</html>"),
		"401":                  page(401, "application/json", oci),
		"204":                  page(204, image.MediaType, ""),
	} {
		t.Run(what, func(t *testing.T) {
			for _, warm := range []bool{false, true} {
				r := start(t, quirky.Options{}, nil)
				if warm {
					r.pull()
				}
				r.up.Set(func(o *quirky.Options) { o.Intercept = bad })
				for _, p := range []string{byTag(), byDigest(), blobPath(layer)} {
					if a := r.Get(p, nil); a.Status == 200 && !bytes.Equal(a.Body, image.Bytes) && !bytes.Equal(a.Body, layer.Bytes) {
						t.Errorf("warm %v: %s is answered %q", warm, p, a.Body)
					}
				}
				if !warm {
					if found := content(t, r.folder, nil); len(found) > 0 {
						t.Errorf("kept: %v", found)
					}
				}
				r.here()
				r.pull()
			}
		})
	}
}

// Source: zot#4128.
func TestCachedDigestAsksUpstreamNothingUnderALiveGrant(t *testing.T) {
	o := private("Bearer")
	r := start(t, o, nil)
	r.pull()
	r.keeps(image.Blobs...)
	r.up.Forget()
	for range 5 {
		r.whole("the manifest", r.Get(byDigest(), nil), image.Bytes)
		r.status("its HEAD", r.Do("HEAD", byDigest(), nil), 200)
		for _, b := range image.Blobs {
			r.whole("a blob", r.Get(blobPath(b), nil), b.Bytes)
			r.status("its HEAD", r.Do("HEAD", blobPath(b), nil), 200)
		}
	}
	r.askedNothing("what is kept, by digest")
	r.status("the tag", r.Do("HEAD", byTag(), nil), 200)
	if n := len(r.up.All()); n != 1 {
		t.Errorf("a warm tag made %d requests upstream, want 1 HEAD", n)
	}
}
