package mirrors

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// hang is a mirror that accepts requests and never responds, except to a check of its API.
func hang(_ quirky.Part, _ http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path == "/v2/" {
		return false
	}
	<-r.Context().Done()
	return true
}

// always is a mirror that responds to every request in one way.
func always(status int, contentType, body string) func(quirky.Part, http.ResponseWriter, *http.Request) bool {
	return func(_ quirky.Part, w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	}
}

// wrong sends other bytes than those of the digest that is asked for.
func wrong(_ quirky.Part, w http.ResponseWriter, r *http.Request) bool {
	if !strings.Contains(r.URL.Path, "/blobs/") {
		return false
	}
	_, _ = w.Write(make([]byte, 1000))
	return true
}

func TestEnginesPullThroughTheRegistryWhileAMirrorIsHalfDead(t *testing.T) {
	for name, intercept := range map[string]func(quirky.Part, http.ResponseWriter, *http.Request) bool{
		"it never responds":        hang,
		"it refuses":               always(http.StatusUnauthorized, "application/json", "{}"),
		"it forbids":               always(http.StatusForbidden, "application/json", "{}"),
		"it sends a page":          always(http.StatusOK, "text/html", "<html>Sign in</html>"),
		"it fails":                 always(http.StatusBadGateway, "text/html", "<html>Bad gateway</html>"),
		"it has nothing":           always(http.StatusNotFound, "application/json", "{}"),
		"it is asked too often":    always(http.StatusTooManyRequests, "application/json", "{}"),
		"it sends the wrong bytes": wrong,
	} {
		t.Run(name, func(t *testing.T) {
			image := quirky.NewImage(true, name, 200_000, 100_000, 1000)
			mirror, home := quirky.New(t, quirky.Options{Intercept: intercept}), quirky.New(t, quirky.Options{})
			mirror.Add("library/app", "v1", image)
			home.Add("library/app", "v1", image)
			s := harness.Start(t, harness.Options{Registries: []harness.Registry{
				{Name: "docker.io", Upstreams: []string{"optional+" + mirror.URL(), home.URL()}},
			}})
			newEngines(t, s).pull("library/app", "v1")
			if mirror.Count(quirky.Registry, "", "/library/app/") == 0 {
				t.Error("the mirror was not asked at all")
			}
		})
	}
}

// The first request waits for the mirror. It is a HEAD or a GET; what comes after it to the mirror are
// trials in the background, which are HEADs.
func TestAMirrorThatNeverRespondsIsWaitedForByOneRequestOnly(t *testing.T) {
	mirror, home := quirky.New(t, quirky.Options{Intercept: hang}), quirky.New(t, quirky.Options{})
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: "docker.io", Upstreams: []string{mirror.URL(), home.URL()}}},
	})
	for i := range 30 {
		image := quirky.NewImage(true, fmt.Sprint(i), 10_000)
		home.Add("library/app", fmt.Sprint(i), image)
		s.Get(fmt.Sprintf("/v2/library/app/manifests/%d?ns=docker.io", i), nil).Whole(t, "the manifest", image.Bytes)
		for _, blob := range image.Blobs {
			s.Get("/v2/library/app/blobs/"+blob.Digest.String()+"?ns=docker.io", nil).Whole(t, "a blob", blob.Bytes)
		}
	}
	if n := mirror.Count(quirky.Registry, "GET", "/library/app/"); n != 1 {
		t.Errorf("the mirror was asked %d times by GET", n)
	}
	if log := s.Log(); strings.Count(log, "upstream skipped for a while") != 1 {
		t.Errorf("the log is\n%s", log)
	}
}

func TestATagIsWhatTheFirstUpstreamThatRespondsSays(t *testing.T) {
	old, current := quirky.NewImage(true, "old", 1000), quirky.NewImage(true, "current", 1000)
	mirror, home := quirky.New(t, quirky.Options{}), quirky.New(t, quirky.Options{})
	mirror.Add("library/app", "latest", old)
	home.Add("library/app", "latest", current)
	s := harness.Start(t, harness.Options{Registries: []harness.Registry{{Name: "docker.io", Upstreams: []string{mirror.URL(), home.URL()}}}})
	const tag = "/v2/library/app/manifests/latest?ns=docker.io"
	s.Get(tag, nil).Whole(t, "the tag", old.Bytes)
	mirror.Set(func(o *quirky.Options) { o.Intercept = always(http.StatusBadGateway, "text/plain", "") })
	s.Get(tag, nil).Whole(t, "the tag while the mirror fails", current.Bytes)
	mirror.Set(func(o *quirky.Options) { o.Intercept = nil })
	s.Get(tag, nil).Whole(t, "the tag when the mirror is well again", old.Bytes)
}

func TestAnImageThatOnlyTheRegistryRefusesToKnowDoesNotExistWhileAnOptionalMirrorIsGone(t *testing.T) {
	home := quirky.New(t, quirky.Options{})
	gone := "http://" + harness.FreeAddress(t)
	for prefix, want := range map[string]int{"": 502, "optional+": 404} {
		s := harness.Start(t, harness.Options{Registries: []harness.Registry{{Name: "docker.io", Upstreams: []string{prefix + gone, home.URL()}}}})
		s.Get("/v2/library/none/manifests/v1?ns=docker.io", nil).Is(t, "what does not exist, with "+prefix+gone, want)
	}
}
