package traps

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sidemirror/sidemirror/test/quirky"
)

const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"

// Source: kraken#288.
func TestOCIManifestWithoutMediaTypeIsServedAsItIs(t *testing.T) {
	bare := quirky.Raw(v1.MediaTypeImageManifest,
		bytes.Replace(image.Bytes, []byte(`"mediaType":"`+v1.MediaTypeImageManifest+`",`), nil, 1))
	index := quirky.Raw(v1.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[]}`))
	for _, m := range []quirky.Image{bare, index} {
		var top struct{ MediaType string }
		if err := json.Unmarshal(m.Bytes, &top); err != nil || top.MediaType != "" {
			t.Fatalf("the test's manifest has a mediaType, or is none: %v, %s", err, m.Bytes)
		}
		r := start(t, quirky.Options{}, nil)
		r.up.Add(repo, "bare", m)
		for _, reference := range []string{"bare", m.Digest.String()} {
			a := r.Get(path("manifests/"+reference), nil)
			r.whole(reference, a, m.Bytes)
			if got := a.Header.Get("Content-Type"); got != m.MediaType {
				t.Errorf("Content-Type %q, want the upstream's %q", got, m.MediaType)
			}
		}
	}
}

// Source: zot#2584.
func TestDockerManifestIsNotConvertedToOCI(t *testing.T) {
	docker := quirky.NewImage(true, "docker", 500)
	index := quirky.NewIndex(true, docker, quirky.NewImage(true, "arm64", 500))
	// Bytes that no encoder of ours would make again.
	odd := quirky.Raw(dockerManifest, append([]byte("\n\t"), append(docker.Bytes, " \n"...)...))
	r := start(t, quirky.Options{}, nil)
	for tag, m := range map[string]quirky.Image{"docker": docker, "index": index, "odd": odd} {
		r.up.Add(repo, tag, m)
		a := r.Get(path("manifests/"+tag), http.Header{"Accept": {v1.MediaTypeImageManifest + ", " + v1.MediaTypeImageIndex}})
		r.whole(tag, a, m.Bytes)
		if a.Header.Get("Content-Type") != m.MediaType || a.Header.Get("Docker-Content-Digest") != m.Digest.String() {
			t.Errorf("%s: header %v", tag, a.Header)
		}
	}
}

// Source: crproxy.
func TestErrorBodyIsNotServedNorKeptUnderATag(t *testing.T) {
	r := start(t, quirky.Options{Manifest: quirky.Manifest{HTML: true}}, nil)
	for _, method := range []string{"HEAD", "GET"} {
		r.status(method+" of an HTML page", r.Do(method, path("manifests/v1"), nil), 502)
	}
	r.status("an HTML page for a digest", r.Get(path("manifests/"+image.Digest.String()), nil), 502)
	r.up.Set(func(o *quirky.Options) { o.Manifest.HTML = false })
	r.Eventually("the manifest is served once the upstream works again", func() bool {
		return r.Get(path("manifests/v1"), nil).Status == 200
	})
	r.pull()
}

// Source: niks3#229.
func TestNarrowAcceptGetsItsOwnAnswer(t *testing.T) {
	amd, arm := quirky.NewImage(false, "amd64", 10), quirky.NewImage(false, "arm64", 10)
	index := quirky.NewIndex(false, amd, arm)
	r := start(t, quirky.Options{Manifest: quirky.Manifest{Negotiate: true}}, nil)
	r.up.Add(repo, "multi", index)
	for range 2 {
		for _, x := range []struct {
			accept []string
			want   quirky.Image
		}{
			{[]string{v1.MediaTypeImageIndex, v1.MediaTypeImageManifest}, index},
			{[]string{v1.MediaTypeImageManifest}, amd},
			{[]string{v1.MediaTypeImageManifest + ", " + v1.MediaTypeImageIndex}, index},
			{[]string{"application/vnd.docker.distribution.manifest.v2+json"}, amd},
		} {
			header := http.Header{"Accept": x.accept}
			what := strings.Join(x.accept, "|")
			r.whole(what, r.Get(path("manifests/multi"), header), x.want.Bytes)
			head := r.Do("HEAD", path("manifests/multi"), header)
			if got := head.Header.Get("Docker-Content-Digest"); got != x.want.Digest.String() {
				t.Errorf("HEAD with Accept %s: digest %s, want %s", what, got, x.want.Digest)
			}
		}
	}
}

// Source: containers-roadmap#2837.
func TestFirstPullByDigestAndTagWithDigest(t *testing.T) {
	o := withLogin("Bearer")
	r := start(t, o, nil)
	// Nothing was asked before: no tag, no HEAD.
	a := r.Get(path("manifests/"+image.Digest.String()), nil)
	r.whole("by digest", a, image.Bytes)
	if a.Header.Get("Docker-Content-Digest") != image.Digest.String() {
		t.Errorf("header %v", a.Header)
	}
	// tag@digest: engines resolve by the digest, whatever the tag says by now.
	r.up.Add(repo, "v1", quirky.NewImage(false, "newer", 10))
	r.whole("after the tag moved", r.Get(path("manifests/"+image.Digest.String()), nil), image.Bytes)
	for _, b := range image.Blobs {
		r.whole("its blob", r.Get(blobPath(b), nil), b.Bytes)
	}
}

func TestHeadWithoutDigestOrLengthUpstreamIsCompletedHere(t *testing.T) {
	for what, m := range map[string]quirky.Manifest{
		"no digest":           {NoDigest: true},
		"no length":           {NoLength: true},
		"no digest, chunked":  {NoDigest: true, NoLength: true, Chunked: true},
		"HEAD is not allowed": {HEADStatus: 405},
		"no type":             {NoType: true},
	} {
		t.Run(what, func(t *testing.T) {
			r := start(t, quirky.Options{Manifest: m}, nil)
			for _, reference := range []string{"v1", image.Digest.String()} {
				a := r.Do("HEAD", path("manifests/"+reference), nil)
				r.status(reference, a, 200)
				for header, want := range map[string]string{
					"Docker-Content-Digest": image.Digest.String(),
					"Content-Length":        strconv.Itoa(len(image.Bytes)),
					"Content-Type":          image.MediaType,
				} {
					if got := a.Header.Get(header); got != want {
						t.Errorf("%s: %s %q, want %q", reference, header, got, want)
					}
				}
			}
		})
	}
}

func TestNotModifiedIsNeverRelayed(t *testing.T) {
	for _, odd := range []int{304, 300, 305, 306, 399} {
		o := quirky.Options{Intercept: func(_ quirky.Part, w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/manifests/") || strings.Contains(r.URL.Path, "/blobs/") {
				w.WriteHeader(odd)
				return true
			}
			return false
		}}
		r := start(t, o, nil)
		for _, p := range []string{path("manifests/v1"), path("manifests/" + image.Digest.String()), blobPath(layer)} {
			a := r.Get(p, http.Header{"If-None-Match": {`"` + image.Digest.String() + `"`}})
			if a.Status < 500 {
				t.Errorf("upstream's %d became %d", odd, a.Status)
			}
		}
		for _, q := range r.up.All() {
			if q.Header.Get("If-None-Match") != "" {
				t.Error("If-None-Match was forwarded")
			}
		}
	}
}

func TestHeadWithAMalformedDigestIsNotPassedOn(t *testing.T) {
	for _, bad := range []string{"sha256:xyz", "sha256:00", "x", "md5:d41d8cd98f00b204e9800998ecf8427e", "../../etc"} {
		o := quirky.Options{Intercept: func(_ quirky.Part, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Docker-Content-Digest", bad)
			return false
		}, Manifest: quirky.Manifest{NoDigest: true}}
		r := start(t, o, nil)
		a := r.Do("HEAD", path("manifests/v1"), nil)
		if got := a.Header.Get("Docker-Content-Digest"); a.Status == 200 && got != image.Digest.String() {
			t.Errorf("upstream's digest %q became %q", bad, got)
		}
	}
}

func TestManifestThatIsNotItsDigestIsRefused(t *testing.T) {
	for what, m := range map[string]quirky.Manifest{
		"a byte flipped": {Fault: quirky.Fault{Kind: quirky.Flip, At: 30}},
		"cut":            {Fault: quirky.Fault{Kind: quirky.Cut, At: 30}},
		"short":          {Fault: quirky.Fault{Kind: quirky.Short, At: 30}},
		"a byte more":    {Fault: quirky.Fault{Kind: quirky.Extra}},
		"gzip":           {Gzip: true},
		"gzip, chunked":  {Gzip: true, Chunked: true},
	} {
		t.Run(what, func(t *testing.T) {
			r := start(t, quirky.Options{Manifest: m}, nil)
			for _, reference := range []string{image.Digest.String(), "v1"} {
				a := r.Get(path("manifests/"+reference), nil)
				if a.Status == 200 && a.Err == nil && bytes.Equal(a.Body, image.Bytes) {
					continue // unpacked, and right
				}
				r.status(reference, a, 502)
			}
		})
	}
}

func TestManifestOverFourMiBIsRefused(t *testing.T) {
	padded := func(size int) quirky.Image {
		body := append([]byte(nil), image.Bytes...)
		return quirky.Raw(image.MediaType, append(body, bytes.Repeat([]byte(" "), size-len(body))...))
	}
	most, over := padded(4<<20), padded(4<<20+1)
	for _, chunked := range []bool{false, true} {
		r := start(t, quirky.Options{Manifest: quirky.Manifest{Chunked: chunked, NoLength: chunked}}, nil)
		r.up.Add(repo, "most", most)
		r.up.Add(repo, "over", over)
		r.whole("4 MiB", r.Get(path("manifests/most"), nil), most.Bytes)
		for _, reference := range []string{"over", over.Digest.String()} {
			r.status(fmt.Sprint("4 MiB and a byte, chunked ", chunked), r.Get(path("manifests/"+reference), nil), 502)
		}
	}
}

func TestManifestThatIsNoManifestIsRefused(t *testing.T) {
	for what, m := range map[string]quirky.Image{
		"schema 1": quirky.Raw("application/vnd.docker.distribution.manifest.v1+prettyjws",
			[]byte(`{"schemaVersion":1,"name":"team/app","tag":"v1","architecture":"amd64","fsLayers":[],"history":[],"signatures":[]}`)),
		"deep JSON": quirky.Raw(image.MediaType, []byte(strings.Repeat("[", 1<<20))),
		"deep JSON that ends": quirky.Raw(image.MediaType,
			[]byte(strings.Repeat(`{"a":`, 100000)+"1"+strings.Repeat("}", 100000))),
		"empty": quirky.Raw(image.MediaType, nil),
	} {
		t.Run(what, func(t *testing.T) {
			r := start(t, quirky.Options{}, nil)
			r.up.Add(repo, "bad", m)
			for _, reference := range []string{"bad", m.Digest.String()} {
				a := r.Get(path("manifests/"+reference), nil)
				if a.Status < 400 {
					t.Errorf("%s: status %d", reference, a.Status)
				}
				if what == "schema 1" && !strings.Contains(strings.ToLower(string(a.Body)), "schema") {
					t.Errorf("the error does not say why: %s", a.Body)
				}
			}
			r.pull()
		})
	}
}

func TestTagListIsPagedThroughUs(t *testing.T) {
	for _, absolute := range []bool{false, true} {
		for _, base := range []string{"/v2/team/app/tags/list?n=2&ns=" + name, "/v2/" + name + "/team/app/tags/list?n=2"} {
			r := start(t, quirky.Options{Lists: quirky.Lists{AbsoluteLink: absolute}}, nil)
			for _, tag := range []string{"a", "b", "c", "d"} {
				r.up.Add(repo, tag, image)
			}
			var got []string
			for next := base; next != ""; {
				a := r.Get(next, nil)
				r.status(next, a, 200)
				for tag := range strings.SplitSeq(string(a.Body), `"`) {
					if len(tag) <= 2 && tag != "" && strings.Trim(tag, "abcdv1") == "" {
						got = append(got, tag)
					}
				}
				link := a.Header.Get("Link")
				if link == "" {
					break
				}
				next, _, _ = strings.Cut(strings.TrimPrefix(link, "<"), ">")
				if !strings.HasPrefix(next, "/v2/") || strings.Contains(next, r.up.Host()) {
					t.Fatalf("Link %q leads away from us", link)
				}
			}
			if strings.Join(got, " ") != "a b c d v1" {
				t.Errorf("absolute %v, %s: tags %v", absolute, base, got)
			}
		}
	}
}

func TestReferrersAreFilteredAsTheUpstreamDoes(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	sbom := quirky.NewReferrer(image, "application/sbom", "sbom")
	r.up.Add(repo, "", sbom)
	r.up.Add(repo, "", quirky.NewReferrer(image, "application/signature", "signature"))
	a := r.Get(path("referrers/"+image.Digest.String())+"&artifactType=application/sbom", nil)
	r.status("referrers", a, 200)
	if a.Header.Get("OCI-Filters-Applied") != "artifactType" || a.Header.Get("Content-Type") != v1.MediaTypeImageIndex {
		t.Errorf("header %v", a.Header)
	}
	if !strings.Contains(string(a.Body), sbom.Digest.String()) || strings.Contains(string(a.Body), "application/signature") {
		t.Errorf("body %s", a.Body)
	}
}

func TestMissingIs404InEveryForm(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	absent := digest.FromString("absent").String()
	for _, p := range []string{"manifests/v9", "manifests/" + absent, "blobs/" + absent} {
		for _, method := range []string{"GET", "HEAD"} {
			r.status(p, r.Do(method, path(p), nil), 404)
			r.status(p, r.Do(method, "/v2/"+name+"/"+repo+"/"+p, nil), 404)
		}
	}
}
