package access

import (
	_ "embed"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// attackPage is a page of another site that tries every way by which a page makes a browser send a
// request. TARGET and REBOUND are two addresses of sidemirror: a loopback one, and a name of the
// site's own that resolves to it.
//
//go:embed testdata/attack.html
var attackPage string

// A browser of a trusted user sends a page's requests over connections of that user.
func TestNoWebPageUsesALogin(t *testing.T) {
	up := quirky.New(t, private("Bearer"))
	up.Add(repo, "v1", image)
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: up.Host(), Upstreams: []string{up.URL()}}},
		Logins:     map[string]string{up.Host(): user + ":" + password},
		Cache:      "none",
	})
	what := of(up.Host(), "manifests/v1")
	s.Get(what, nil).Whole(t, "an engine of the same user", image.Bytes)
	up.Forget()

	reports := make(chan string, 1)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Type", "text/html")
			_, port, _ := strings.Cut(s.Address(), ":")
			_, _ = io.WriteString(w, strings.NewReplacer("TARGET", s.URL()+what, "REBOUND", "http://site.example:"+port+what).Replace(attackPage))
		case "/redirect":
			http.Redirect(w, r, s.URL()+what, http.StatusTemporaryRedirect)
		case "/report":
			body, _ := io.ReadAll(io.LimitReader(r.Body, 64<<10))
			select {
			case reports <- string(body):
			default:
			}
		}
	}))
	defer site.Close()
	u, err := url.Parse(site.URL)
	if err != nil {
		t.Fatal(err)
	}
	browser := exec.CommandContext(t.Context(), process.Path(t, "chromium"), "--headless", "--no-sandbox", "--disable-gpu",
		"--disable-dev-shm-usage", "--user-data-dir="+t.TempDir(), "--host-resolver-rules=MAP site.example 127.0.0.1",
		"--no-proxy-server", "--no-first-run", "--disable-background-networking", "http://site.example:"+u.Port()+"/")
	process.Start(t, "chromium", browser, func(string) error { return nil })
	report := ""
	s.Eventually("the page has tried everything", func() bool {
		select {
		case report = <-reports:
			return true
		default:
			return false
		}
	})
	t.Logf("%d requests of the page reached sidemirror:\n%s", strings.Count(s.Log(), "web pages may not"), report)
	for _, kind := range []string{"fetch", "image", "script", "frame", "form", "redirect", "beacon", "rebound"} {
		if !strings.Contains(report, kind+": ") {
			t.Errorf("the page has not tried %s", kind)
		}
	}
	if strings.Contains(report, "READ") {
		t.Errorf("the page has read something:\n%s", report)
	}
	if n := len(up.Requests(quirky.Registry, "", "")); n != 0 {
		t.Errorf("the registry saw %d requests for the page", n)
	}
	if strings.Count(s.Log(), "web pages may not") < 5 {
		t.Errorf("hardly any request of the page reached sidemirror:\n%s", s.Log())
	}
}
