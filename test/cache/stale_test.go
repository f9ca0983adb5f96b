package cache

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

const day = 24 * time.Hour

// stale fails the test unless the tag is answered with what was kept, marked so.
func (r *rig) stale(what string, p string, want []byte) {
	r.t.Helper()
	a := r.Get(p, nil)
	r.whole(what, a, want)
	if !strings.HasPrefix(a.Header.Get("Warning"), "110 ") {
		r.t.Errorf("%s: Warning %q, want 110", what, a.Header.Get("Warning"))
	}
}

func TestTagIsServedStaleOnlyWhileTheUpstreamCannotAnswer(t *testing.T) {
	for what, trouble := range map[string]func(*rig){
		"unreachable": func(r *rig) { r.away() },
		"500":         func(r *rig) { r.answers(500) },
		"502":         func(r *rig) { r.answers(502) },
		"503":         func(r *rig) { r.answers(503) },
		"504":         func(r *rig) { r.answers(504) },
		"429":         func(r *rig) { r.answers(429) },
		"429 with Retry-After": func(r *rig) {
			r.up.Set(func(o *quirky.Options) { o.Limit = quirky.Limit{Status: 429, RetryAfter: "60"} })
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := start(t, quirky.Options{}, nil)
			r.pull()
			r.keeps(image.Blobs...)
			if a := r.Get(byTag(), nil); a.Header.Get("Warning") != "" {
				t.Errorf("fresh: Warning %q", a.Header.Get("Warning"))
			}
			trouble(r)
			r.stale("the tag", byTag(), image.Bytes)
			r.pull()
			// To a person too, whose client has no other way to go.
			r.stale("the tag in prefix form", "/v2/"+name+"/"+repo+"/manifests/v1", image.Bytes)
			r.refused(harness.Client(t), []string{path(repo, "manifests/v2"), path("team/new", "manifests/v1")}, 502, 504)
		})
	}
}

func TestStaleTagIsServedNoLongerThanMaxStale(t *testing.T) {
	for what, x := range map[string]struct {
		kind  string
		by    time.Duration
		keys  []string
		stale bool
	}{
		"six days":                     {"_tags", 6 * day, nil, true},
		"eight days":                   {"_tags", 8 * day, nil, false},
		"let in six days ago":          {"_grants", 6 * day, nil, true},
		"let in eight days ago":        {"_grants", 8 * day, nil, false},
		"two hours where one is meant": {"_tags", 2 * time.Hour, []string{"max_stale=1h"}, false},
		"not at all":                   {"_tags", 0, []string{"max_stale=0s"}, false},
	} {
		t.Run(what, func(t *testing.T) {
			r := start(t, quirky.Options{}, env(x.keys...))
			r.pull()
			r.away()
			r.aged(x.kind, x.by)
			if x.stale {
				r.stale("the tag", byTag(), image.Bytes)
			} else if a := r.Get(byTag(), nil); a.Status < 500 {
				t.Errorf("status %d, want an error", a.Status)
			}
		})
	}
}

func TestMovedTagIsSeenAtOnce(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	r.pull()
	r.up.Add(repo, "v1", other)
	r.whole("the tag", r.Get(byTag(), nil), other.Bytes)
	r.away()
	r.stale("the tag when the upstream is away", byTag(), other.Bytes)
	r.whole("what it meant before, by digest", r.Get(byDigest(), nil), image.Bytes)
}

func TestUpstreamThatHangsCostsAKeptImageOneFreshnessTimeout(t *testing.T) {
	// Longer than the client waits: freshness_timeout alone ends the request that hangs.
	const headerTimeout = 5 * time.Minute
	var hanging atomic.Int64
	hang := func(_ quirky.Part, _ http.ResponseWriter, r *http.Request) bool {
		hanging.Add(1)
		<-r.Context().Done()
		return true
	}
	for form, p := range map[string]string{"mirror": "/v2/" + repo, "prefix": "/v2/" + name + "/" + repo} {
		t.Run(form, func(t *testing.T) {
			ns := map[string]string{"mirror": "?ns=" + name}[form]
			r := start(t, quirky.Options{}, func(up *quirky.Server, h *harness.Options) {
				env("freshness_timeout=500ms")(up, h)
				h.Registries[0].HeaderTimeout = headerTimeout
			})
			many := quirky.NewImage(false, "many", 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
			r.up.Add(repo, "v1", many)
			r.pullAs(harness.Client(t), repo, many)
			r.keeps(many.Blobs...)
			r = r.restart(nil) // which has no grant yet
			r.up.Set(func(o *quirky.Options) { o.Intercept = hang })
			client := harness.Client(t)
			hanging.Store(0)
			a := r.DoWith(client, "HEAD", p+"/manifests/v1"+ns, nil)
			r.status("the tag", a, 200)
			if a.Header.Get("Warning") == "" {
				t.Error("it is not marked as stale")
			}
			r.whole("the manifest", r.DoWith(client, "GET", p+"/manifests/"+many.Digest.String()+ns, nil), many.Bytes)
			for _, b := range many.Blobs {
				r.whole("a blob", r.DoWith(client, "GET", p+"/blobs/"+b.Digest.String()+ns, nil), b.Bytes)
			}
			if n := hanging.Load(); n > 2 {
				t.Errorf("a cached image of %d blobs waited for %d requests that hang, want one or two", len(many.Blobs), n)
			}
		})
	}
}

func TestTagTTLSparesTheUpstream(t *testing.T) {
	r := start(t, private("Bearer"), env("tag_ttl=1h"))
	r.pull()
	r.keeps(image.Blobs...)
	r.up.Forget()
	r.up.Add(repo, "v1", other)
	r.pull()
	r.askedNothing("a tag within its tag_ttl")
	r.refused(harness.ClientAs(t, harness.Untrusted), everything(repo), 401, 403)
	r.aged("_tags", 2*time.Hour)
	r.whole("the tag after its tag_ttl", r.Get(byTag(), nil), other.Bytes)
}

func TestTagIsWrittenDownAgainOnlyWhereThatSaysMore(t *testing.T) {
	r := start(t, quirky.Options{}, nil)
	record := filepath.Join(r.folder, "repositories", name, repo, "_tags", "v1")
	written := func() os.FileInfo {
		t.Helper()
		info, err := os.Stat(record)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	r.pull()
	r.keeps(image.Blobs...)
	first := written()
	r.pull()
	if !os.SameFile(first, written()) {
		t.Error("the same meaning was written down again within a second")
	}
	r.aged("_tags", 2*time.Minute)
	old := written()
	r.whole("the tag of two minutes ago", r.Get(byTag(), nil), image.Bytes)
	if os.SameFile(old, written()) {
		t.Error("that the tag still means the same was not written down after two minutes")
	}
	r.up.Add(repo, "v1", other)
	r.whole("the tag that moved", r.Get(byTag(), nil), other.Bytes)
	r.away()
	r.stale("the tag that moved", byTag(), other.Bytes)
}

func TestTagIsNotAnsweredFromTheCacheWithWhatTheClientDoesNotTake(t *testing.T) {
	index := quirky.NewIndex(false, image, quirky.NewImage(false, "arm64", 50))
	r := start(t, quirky.Options{Manifest: quirky.Manifest{Negotiate: true}}, nil)
	r.up.Add(repo, "both", index)
	p := path(repo, "manifests/both")
	both := http.Header{"Accept": {index.MediaType + ", " + image.MediaType}}
	single := http.Header{"Accept": {image.MediaType}}
	for _, state := range []string{"cold", "warm", "away"} {
		if state == "away" {
			r.away()
		}
		r.whole(state+", takes both", r.Get(p, both), index.Bytes)
		r.whole(state+", takes no index", r.Get(p, single), image.Bytes)
	}
}

func TestListsAreAnsweredWhileTheUpstreamIsAway(t *testing.T) {
	r := start(t, quirky.Options{Lists: quirky.Lists{PageSize: 1}}, nil)
	r.up.Add(repo, "v2", other)
	r.up.Add(repo, "", quirky.NewReferrer(image, "application/vnd.example.sbom", "sbom"))
	lists := []string{
		path(repo, "tags/list"), path(repo, "tags/list") + "&n=1&last=v1",
		path(repo, "referrers/"+image.Digest.String()),
		path(repo, "referrers/"+image.Digest.String()) + "&artifactType=application/vnd.example.sbom",
	}
	before := make([]harness.Answer, len(lists))
	for i, p := range lists {
		before[i] = r.Get(p, nil)
		r.status(p, before[i], 200)
		if before[i].Header.Get("Warning") != "" {
			t.Errorf("%s: Warning on a fresh list", p)
		}
	}
	check := func(r *rig) {
		t.Helper()
		for i, p := range lists {
			a := r.Get(p, nil)
			r.whole(p, a, before[i].Body)
			for _, h := range []string{"Content-Type", "Link", "OCI-Filters-Applied"} {
				if a.Header.Get(h) != before[i].Header.Get(h) {
					t.Errorf("%s: %s %q, before %q", p, h, a.Header.Get(h), before[i].Header.Get(h))
				}
			}
			if !strings.HasPrefix(a.Header.Get("Warning"), "110 ") {
				t.Errorf("%s: Warning %q, want 110", p, a.Header.Get("Warning"))
			}
		}
		r.refused(harness.Client(t), []string{path(repo, "tags/list") + "&n=7", path("team/new", "tags/list")}, 502, 504)
	}
	r.away()
	check(r)
	next := r.restart(nil)
	check(next)
	next.aged("_answers", 8*day)
	next.refused(harness.Client(t), lists, 502, 504)
}

func TestRefusalOfAListIsNotPaperedOver(t *testing.T) {
	for _, status := range []int{401, 403, 404} {
		r := start(t, quirky.Options{}, nil)
		list := path(repo, "tags/list")
		r.status("the list", r.Get(list, nil), 200)
		r.answers(status)
		r.refused(harness.Client(t), []string{list}, status)
	}
}

func TestListsOfAPrivateRepositoryAreNotServedToAnUntrustedUserWhileTheUpstreamIsAway(t *testing.T) {
	r := start(t, private("Bearer"), nil)
	lists := []string{path(repo, "tags/list"), path(repo, "referrers/"+image.Digest.String())}
	for _, p := range lists {
		r.status(p, r.Get(p, nil), 200)
	}
	r.away()
	for _, p := range lists {
		r.status(p, r.Get(p, nil), 200)
	}
	r.refused(harness.ClientAs(t, harness.Untrusted), lists, 401, 403, 502, 504)
}
