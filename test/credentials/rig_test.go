// Package credentials tests, against the real binary, where the daemon's logins come from: files,
// helpers and plugins, and what happens when they change, end, or misbehave.
package credentials

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	repo   = "team/app"
	canary = "canary-secret-9b3f"
)

var image = quirky.NewImage(false, "credentials", 10<<10, 10)

// issuer is a registry in front of which passwords are checked that it gave out itself, as a cloud's
// registry does. A password holds for a while.
type issuer struct {
	*httptest.Server
	life time.Duration

	mu      sync.Mutex
	ends    map[string]time.Time
	issued  int
	refused int
}

func newIssuer(t *testing.T, life time.Duration) *issuer {
	t.Helper()
	behind := quirky.New(t, quirky.Options{})
	behind.Add(repo, "v1", image)
	to, err := url.Parse(behind.URL())
	if err != nil {
		t.Fatal(err)
	}
	registry := httputil.NewSingleHostReverseProxy(to)
	i := &issuer{life: life, ends: map[string]time.Time{}}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		switch {
		case r.URL.Path == "/issue":
			fmt.Fprint(w, i.issue())
		case r.URL.Path != "/v2/" && strings.HasPrefix(r.URL.Path, "/v2/open/"), i.accepts(password):
			registry.ServeHTTP(w, r)
		default:
			w.Header().Set("WWW-Authenticate", `Basic realm="issuer"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(i.Close)
	return i
}

// issue returns a new password.
func (i *issuer) issue() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.issued++
	password := fmt.Sprintf("%s-%d", canary, i.issued)
	i.ends[password] = time.Now().Add(i.life)
	return password
}

// accept makes password the only one that is accepted.
func (i *issuer) accept(password string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ends = map[string]time.Time{password: time.Now().Add(time.Hour)}
}

func (i *issuer) accepts(password string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	ok := time.Now().Before(i.ends[password])
	if !ok && password != "" {
		i.refused++
	}
	return ok
}

func (i *issuer) counts() (issued, refused int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.issued, i.refused
}

func (i *issuer) host() string { return strings.TrimPrefix(i.URL, "http://") }

// serve starts the daemon in front of i. Each setting is one of its variables.
func (i *issuer) serve(t *testing.T, settings ...string) *harness.Sidemirror {
	t.Helper()
	return harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: i.host(), Upstreams: []string{i.URL}}},
		Env:        settings,
		Secrets:    []string{canary},
	})
}

func (i *issuer) manifest() string { return "/v2/" + repo + "/manifests/v1?ns=" + i.host() }

// helpers is a folder with docker-credential-NAME for each shell script.
func helpers(t *testing.T, scripts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range scripts {
		write(t, filepath.Join(dir, "docker-credential-"+name), "#!/bin/sh\n"+text+"\n", 0o755)
	}
	return dir
}

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// plugin builds the plugin and returns the settings with which sidemirror asks it about i.
func (i *issuer) plugin(t *testing.T, life time.Duration) (settings []string) {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "issuer-plugin"), "./plugin")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	config := write(t, filepath.Join(t.TempDir(), "plugins.yaml"), fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: issuer-plugin
    matchImages: [%q]
    defaultCacheDuration: 12h
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    env:
      - {name: ISSUER, value: %q}
      - {name: LIFE, value: %q}
`, i.host(), i.URL+"/issue", life), 0o600)
	return []string{"SIDEMIRROR_CREDENTIALS_PLUGINS=" + config, "SIDEMIRROR_CREDENTIALS_PLUGIN_DIR=" + dir}
}
