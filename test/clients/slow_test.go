package clients_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// slowHEAD keeps the HEAD of a repository's manifests waiting until release is called.
func slowHEAD(s *stage, repository string) (release func()) {
	wait := make(chan struct{})
	s.up.Set(func(o *quirky.Options) {
		o.Intercept = func(_ quirky.Part, _ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead && strings.HasPrefix(r.URL.Path, "/v2/"+repository+"/manifests/") {
				select {
				case <-wait:
				case <-r.Context().Done():
				}
			}
			return false
		}
	})
	release = sync.OnceFunc(func() { close(wait) })
	s.t.Cleanup(release)
	return release
}

// A HEAD that took longer than freshness_timeout made the whole registry count as out of reach:
// the tag that had moved was answered old in each pull, and so were, for a minute, the tags of
// other repositories, without being asked for.
func TestASlowHeadDelaysOneTagAndUpdatesItForTheNextPull(t *testing.T) {
	s := newStage(t, engines{}, quirky.Options{}, func(h *harness.Options) {
		h.Env = append(h.Env, "SIDEMIRROR_CACHE_FRESHNESS_TIMEOUT=300ms")
	})
	manifest := func(repository string) string {
		t.Helper()
		got, err := s.run("crane", "manifest", "--insecure", s.byPrefix(repository+":v1"))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	image := func(version, repository string) quirky.Image {
		return quirky.NewImage(false, version+repository, 1000)
	}
	for _, repository := range []string{"alice/slow", "alice/quick"} {
		s.up.Add(repository, "v1", image("old ", repository))
		if got := manifest(repository); got != string(image("old ", repository).Bytes) {
			t.Fatalf("%s is %s", repository, got)
		}
	}
	release := slowHEAD(s, "alice/slow")
	for _, repository := range []string{"alice/slow", "alice/quick"} {
		s.up.Add(repository, "v1", image("new ", repository))
	}
	if got := manifest("alice/slow"); got != string(image("old ", "alice/slow").Bytes) {
		t.Errorf("while its HEAD is slow the tag is %s", got)
	}
	for range 3 {
		if got := manifest("alice/quick"); got != string(image("new ", "alice/quick").Bytes) {
			t.Fatalf("the other repository is %s", got)
		}
	}
	release()
	s.side.Eventually("the tag is what the slow HEAD said", func() bool {
		return manifest("alice/slow") == string(image("new ", "alice/slow").Bytes)
	})
	if log := s.side.Log(); strings.Contains(log, "out of reach") {
		t.Error("the upstream counted as out of reach")
	}
}

// The HEAD of every pull takes longer than freshness_timeout, and each ends while no client
// waits for it.
func TestATagWhoseHeadIsAlwaysSlowIsUpdated(t *testing.T) {
	s := newStage(t, engines{}, quirky.Options{}, func(h *harness.Options) {
		h.Env = append(h.Env, "SIDEMIRROR_CACHE_FRESHNESS_TIMEOUT=100ms")
	})
	version := func(n int) quirky.Image { return quirky.NewImage(false, fmt.Sprint("version ", n), 1000) }
	pull := func() harness.Answer { return s.side.Get("/v2/alice/app/manifests/v1?ns="+name, nil) }
	s.up.Add("alice/app", "v1", version(0))
	pull().Whole(t, "the first version", version(0).Bytes)
	for n := 1; n < 4; n++ {
		s.up.Add("alice/app", "v1", version(n))
		s.up.Forget()
		release := slowHEAD(s, "alice/app")
		a := pull()
		a.Whole(t, "the version before", version(n-1).Bytes)
		if a.Header.Get("Warning") == "" {
			t.Error("it is not marked as stale")
		}
		release()
		s.side.Eventually("sidemirror has fetched the new version", func() bool {
			return s.up.Count(quirky.Registry, "GET", "/v2/alice/app/manifests/v1") > 0
		})
		// The upstream fails from now on: what is served is what is stored.
		s.up.Set(func(o *quirky.Options) { o.Intercept, o.Limit.Status = nil, 503 })
		s.side.Eventually("the new version is served although the registry is away", func() bool {
			return string(pull().Body) == string(version(n).Bytes)
		})
		s.up.Set(func(o *quirky.Options) { o.Limit.Status = 0 })
	}
}
