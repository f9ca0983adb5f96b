// Package page opens the page of the real program in Chromium: in both languages, light and dark, on
// small and large screens, without script, by keyboard, by a checker of accessibility, and from a
// page of another site.
package page

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestMain(m *testing.M) { harness.Main(m) }

// Images of very different sizes, so that a figure that tells one of them is noticed.
var (
	redis    = quirky.NewImage(false, "redis", 3_100_000, 411_000)
	payroll  = quirky.NewImage(false, "payroll", 7_340_000)
	postgres = quirky.NewImage(false, "postgres", 1_500_000, 2_700_000)
)

// input is what browser.mjs is given.
type input struct {
	Chromium  string `json:"chromium"`
	Modules   string `json:"modules"`   // the folder with node_modules
	Pictures  string `json:"pictures"`  // where screenshots are put
	Trusted   string `json:"trusted"`   // URL of a sidemirror that trusts the browser
	Untrusted string `json:"untrusted"` // URL of one that does not
	Port      string `json:"port"`      // of Trusted
	Site      string `json:"site"`      // the port of another site

	// Secrets are what an untrusted reader may not see.
	Secrets []string `json:"secrets"`
}

func TestPageInABrowser(t *testing.T) {
	hub := quirky.New(t, quirky.Like("docker.io"))
	hub.Add("library/redis", "8-alpine", redis)
	hub.Add("library/postgres", "17", postgres)
	ghcr := quirky.New(t, quirky.Options{})
	ghcr.Add("acme/payroll", "1.4", payroll)
	registries := []harness.Registry{
		{Name: "docker.io", Upstreams: []string{hub.URL()}, Realms: []string{hub.TokenOrigin()}, Hosts: []string{"docker.example.lan"}},
		{Name: "ghcr.io", Upstreams: []string{ghcr.URL()}},
	}
	trusted := harness.Start(t, harness.Options{Registries: registries})
	untrusted := harness.Start(t, harness.Options{Registries: registries, TrustUIDs: []uint32{}})
	for _, s := range []*harness.Sidemirror{trusted, untrusted} {
		pull(t, "crane", "pull", "--insecure", s.Address()+"/library/redis:8-alpine", filepath.Join(t.TempDir(), "image.tar"))
		pull(t, "skopeo", "copy", "--src-tls-verify=false", "docker://"+s.Address()+"/library/redis:8-alpine", "dir:"+t.TempDir())
		pull(t, "crane", "pull", "--insecure", s.Address()+"/ghcr.io/acme/payroll:1.4", filepath.Join(t.TempDir(), "image.tar"))
	}
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>another site</title>"))
	}))
	defer site.Close()

	_, port, _ := strings.Cut(trusted.Address(), ":")
	_, sitePort, _ := strings.Cut(site.Listener.Addr().String(), ":")
	in := input{
		Chromium: process.Path(t, "chromium"), Modules: modules(t), Pictures: pictures(t), Port: port, Site: sitePort,
		Trusted: "http://localhost:" + port + "/", Untrusted: strings.Replace(untrusted.URL(), "127.0.0.1", "localhost", 1) + "/",
		Secrets: []string{"payroll", "8-alpine", "7.3 MB", "3.5 MB", hub.Host(), ghcr.Host()},
	}
	checks := run(t, in)
	if len(checks) < 20 {
		t.Errorf("the browser made %d checks only", len(checks))
	}
	for _, c := range checks {
		t.Run(c.Name, func(t *testing.T) {
			if c.Fault != "" {
				t.Error(c.Fault)
			}
		})
	}
}

// pull makes a real client pull an image.
func pull(t *testing.T, client string, args ...string) {
	t.Helper()
	if _, err := process.Run(t.Context(), nil, process.Path(t, client), args...); err != nil {
		t.Fatal(err)
	}
}

// modules returns the folder in which setup.sh has installed the modules of package.json.
func modules(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(cache, "sidemirror-test", "page")
	for _, name := range []string{"package.json", "package-lock.json"} {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(folder, name)); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s is not what was installed in %s (%v); install it by test/setup.sh", name, folder, err)
		}
	}
	return folder
}

// pictures returns the folder for screenshots: that of $SIDEMIRROR_PICTURES, which stays.
func pictures(t *testing.T) string {
	t.Helper()
	if folder := os.Getenv("SIDEMIRROR_PICTURES"); folder != "" {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		return folder
	}
	return t.TempDir()
}

// check is what browser.mjs reports about one of its checks, in a line of JSON.
type check struct {
	Name  string `json:"name"`
	Fault string `json:"fault"`
}

func run(t *testing.T, in input) (checks []check) {
	t.Helper()
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), process.Path(t, "node"), "browser.mjs")
	cmd.Stdin = bytes.NewReader(data)
	var failure strings.Builder
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("browser.mjs: %v\n%s\n%s", err, out, failure.String())
	}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var c check
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatalf("browser.mjs printed %q", lines.Text())
		}
		checks = append(checks, c)
	}
	return checks
}
