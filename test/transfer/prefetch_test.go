package transfer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// layered is an image of 12 layers.
var layered = quirky.NewImage(false, "layered", slices.Repeat([]int{50_000}, 12)...)

// puller is a client that asks for what a test says, of an image of a registry that counts.
type puller struct {
	*harness.Sidemirror
	t      *testing.T
	up     *quirky.Server
	client *http.Client
	image  quirky.Image
}

func newPuller(t *testing.T, image quirky.Image, o quirky.Options, change func(h *harness.Options)) *puller {
	t.Helper()
	up := quirky.New(t, o)
	up.Add(repo, "v1", image)
	h := harness.Options{Registries: []harness.Registry{{Name: name, Upstreams: []string{up.URL()}}}}
	if o.Auth.Users != nil {
		h.Logins = map[string]string{name: "robot:canary-password-5d1f"}
	}
	if change != nil {
		change(&h)
	}
	return &puller{harness.Start(t, h), t, up, harness.Client(t), image}
}

// get asks for a part of the image's repository.
func (p *puller) get(what string, header http.Header) harness.Answer {
	p.t.Helper()
	return p.DoWith(p.client, "GET", "/v2/"+repo+"/"+what+"?ns="+name, header)
}

func (p *puller) manifest() {
	p.t.Helper()
	p.get("manifests/"+p.image.Digest.String(), nil).Whole(p.t, "the manifest", p.image.Bytes)
}

// layer asks for layer n, from 0.
func (p *puller) layer(n int) {
	p.t.Helper()
	b := p.image.Blobs[1+n]
	p.get("blobs/"+b.Digest.String(), nil).Whole(p.t, fmt.Sprint("layer ", n), b.Bytes)
}

// fetched returns the layers that the registry was asked for, those that came whole.
func (p *puller) fetched() map[int]int {
	found := map[int]int{}
	for n, b := range p.image.Blobs[1:] {
		for _, q := range p.up.Requests(quirky.Registry, "GET", b.Digest.String()) {
			if q.Done && q.Status == http.StatusOK {
				found[n]++
			}
		}
	}
	return found
}

func (p *puller) once(want int) {
	p.t.Helper()
	for n, times := range p.fetched() {
		if times > 1 {
			p.t.Errorf("layer %d was fetched %d times", n, times)
		}
	}
	if got := len(p.fetched()); got != want {
		p.t.Errorf("%d layers were fetched, want %d", got, want)
	}
}

func TestTheLayersOnTopOfTheOneAskedForAreFetchedOnce(t *testing.T) {
	for _, from := range []int{0, 5} {
		o := quirky.Options{Auth: quirky.Auth{Scheme: "Bearer", Users: map[string]string{"robot": "canary-password-5d1f"}, Private: []string{""}}}
		p := newPuller(t, layered, o, nil)
		p.manifest()
		p.layer(from)
		p.Eventually("the layers on top are fetched", func() bool { return len(p.fetched()) == 12-from })
		for n := from; n < 12; n++ {
			p.layer(n)
		}
		p.once(12 - from)
	}
}

// What no client has asked for is not fetched where it should not be.
func TestNothingIsFetchedAheadWhereItShouldNotBe(t *testing.T) {
	untrusted := func(h *harness.Options) { h.TrustUIDs = []uint32{} }
	for what, c := range map[string]struct {
		change func(h *harness.Options)
		pull   func(p *puller)
	}{
		"prefetch = false":      {func(h *harness.Options) { h.Env = append(h.Env, "SIDEMIRROR_CACHE_PREFETCH=false") }, (*puller).begin},
		"an untrusted caller":   {untrusted, (*puller).begin},
		"no cache":              {func(h *harness.Options) { h.Cache = "none" }, (*puller).begin},
		"no manifest was asked": {nil, func(p *puller) { p.layer(3) }},
		"a short range": {nil, func(p *puller) {
			p.manifest()
			p.get("blobs/"+p.image.Blobs[4].Digest.String(), http.Header{"Range": {"bytes=0-999"}})
			p.get("blobs/"+p.image.Blobs[4].Digest.String(), http.Header{"Range": {"bytes=-50"}})
		}},
		"only the config": {nil, func(p *puller) {
			p.manifest()
			p.get("blobs/"+p.image.Blobs[0].Digest.String(), nil).Whole(p.t, "the config", p.image.Blobs[0].Bytes)
		}},
	} {
		t.Run(what, func(t *testing.T) {
			p := newPuller(t, layered, quirky.Options{}, c.change)
			// What the client asks for next comes after whatever was begun.
			for range 5 {
				c.pull(p)
			}
			for n := range p.fetched() {
				if n != 3 {
					t.Errorf("layer %d was fetched", n)
				}
			}
		})
	}
}

// begin asks for the manifest and for layer 3.
func (p *puller) begin() {
	p.manifest()
	p.layer(3)
}

func TestALayerThatIsNotForRegistriesIsNotFetchedAhead(t *testing.T) {
	var m v1.Manifest
	if err := json.Unmarshal(layered.Bytes, &m); err != nil {
		t.Fatal(err)
	}
	m.Layers[6].URLs = []string{"https://vendor.test/layer"}
	m.Layers[7].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	m.Layers[8].MediaType = v1.MediaTypeImageLayerNonDistributableGzip //nolint:staticcheck // images have it
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	image := quirky.Raw(layered.MediaType, body)
	image.Blobs = layered.Blobs
	p := newPuller(t, image, quirky.Options{}, nil)
	p.begin()
	p.Eventually("the other layers are fetched", func() bool { return len(p.fetched()) == 6 })
	if found := p.fetched(); found[6]+found[7]+found[8] > 0 {
		t.Errorf("fetched: %v", found)
	}
}

// A registry that limits its clients is not asked for what no client wants.
func TestARateLimitEndsTheFetchingAhead(t *testing.T) {
	var p *puller
	o := quirky.Options{Intercept: func(_ quirky.Part, w http.ResponseWriter, r *http.Request) bool {
		if p != nil && strings.Contains(r.URL.Path, "/blobs/") && !strings.HasSuffix(r.URL.Path, p.image.Blobs[4].Digest.String()) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
		return false
	}}
	p = newPuller(t, layered, o, nil)
	p.begin()
	p.Eventually("the limit is met", func() bool { return p.up.Count(quirky.Registry, "GET", "/blobs/") > 1 })
	p.Eventually("it is in the log", func() bool { return strings.Contains(p.Log(), "before an engine asked") })
	// At most those that were under way together.
	if n := p.up.Count(quirky.Registry, "GET", "/blobs/"); n > 1+4 {
		t.Errorf("the registry was asked for blobs %d times", n)
	}
}
