package credentials

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/test/harness"
)

// lastUser is a registry that accepts every login, and tells which user sent the last one.
type lastUser struct {
	*httptest.Server
	mu   sync.Mutex
	user string
}

func newLastUser(t *testing.T) *lastUser {
	t.Helper()
	l := &lastUser{}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, ok := r.BasicAuth()
		if !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.user = user
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *lastUser) host() string { return strings.TrimPrefix(l.URL, "http://") }

func auths(host, user string) string {
	return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+canary)))
}

func TestSourcesAreAskedInTheirOrder(t *testing.T) {
	up := newLastUser(t)
	passed, dir, plugins := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, filepath.Join(passed, "registry-corp"), auths(up.host(), "systemd"), 0o400)
	write(t, filepath.Join(passed, "other"), auths(up.host(), "not a registry's"), 0o400)
	store := write(t, filepath.Join(dir, "store.json"), auths(up.host(), "store"), 0o600)
	file := write(t, filepath.Join(dir, "config.json"), auths(up.host(), "file"), 0o600)
	tools := helpers(t, map[string]string{"vault": `echo '{"Username":"helper","Secret":"` + canary + `"}'`})
	write(t, filepath.Join(plugins, "p"), "#!/bin/sh\necho '"+fmt.Sprintf(`{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Global","auth":{%q:{"username":"plugin","password":"x"}}}`, up.host())+"'\n", 0o755)
	plugin := write(t, filepath.Join(dir, "p.json"), fmt.Sprintf(`{"kind":"CredentialProviderConfig","apiVersion":"kubelet.config.k8s.io/v1","providers":[{"name":"p","matchImages":[%q],"defaultCacheDuration":"1h","apiVersion":"credentialprovider.kubelet.k8s.io/v1"}]}`, up.host()), 0o600)
	settings := [][]string{
		{"store", "SIDEMIRROR_CREDENTIALS_STORE=" + store},
		{"systemd", "CREDENTIALS_DIRECTORY=" + passed},
		{"file", "SIDEMIRROR_CREDENTIALS_FILES=" + file},
		{"environment", "DOCKER_AUTH_CONFIG=" + auths(up.host(), "environment")},
		{"helper", "SIDEMIRROR_CREDENTIALS_HELPERS=" + up.host() + "=vault", "SIDEMIRROR_CREDENTIALS_HELPER_DIRS=" + tools},
		{"plugin", "SIDEMIRROR_CREDENTIALS_PLUGINS=" + plugin, "SIDEMIRROR_CREDENTIALS_PLUGIN_DIR=" + plugins},
	}
	for first := range settings {
		want := settings[first][0]
		t.Run(want, func(t *testing.T) {
			var env []string
			for _, s := range settings[first:] {
				env = append(env, s[1:]...)
			}
			s := harness.Start(t, harness.Options{Registries: []harness.Registry{{Name: up.host(), Upstreams: []string{up.URL}}}, Env: env, Secrets: []string{canary}})
			s.Get("/v2/a/b/manifests/v1?ns="+up.host(), nil)
			up.mu.Lock()
			defer up.mu.Unlock()
			if up.user != want {
				t.Errorf("the login of %q was sent", up.user)
			}
		})
	}
}

// command runs sidemirror with a configuration of store and the registry at url.
func command(t *testing.T, store, url, stdin string, args ...string) (output string, code int) {
	t.Helper()
	host := strings.TrimPrefix(url, "http://")
	config := write(t, filepath.Join(t.TempDir(), "config.toml"), fmt.Sprintf("credentials.store = %q\n[registry.%q]\nupstreams = [%q]\n", store, host, url), 0o600)
	cmd := exec.CommandContext(t.Context(), harness.Binary(t), append([]string{"--config", config}, args...)...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// The account was locked, for example. The same password was held back for up to half an hour.
func TestALoginWithTheSamePasswordEndsWhatWasHeldBack(t *testing.T) {
	i := newIssuer(t, 0)
	store := write(t, filepath.Join(t.TempDir(), "store.json"), auths(i.host(), "me"), 0o600)
	s := i.serve(t, "SIDEMIRROR_CREDENTIALS_STORE="+store)
	s.Get(i.manifest(), nil).Is(t, "a pull with a password that is refused", 401)
	i.accept(canary)
	_, before := i.counts()
	s.Get(i.manifest(), nil).Is(t, "a pull while it is held back", 401)
	if _, after := i.counts(); after != before {
		t.Error("it was not held back")
	}
	if out, code := command(t, store, i.URL, canary, "login", i.host(), "-u", "me", "--password-stdin"); code != 0 {
		t.Fatal(out)
	}
	s.Get(i.manifest(), nil).Whole(t, "a pull after the login", image.Bytes)
}

func TestALogoutWorksOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		t.Fatalf("mounting a small disk, which needs root: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	var refuse atomic.Bool
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); !ok || refuse.Load() {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer up.Close()
	host, store := strings.TrimPrefix(up.URL, "http://"), filepath.Join(dir, "store.json")
	for _, key := range []string{host, host + "/org"} {
		if out, code := command(t, store, up.URL, canary, "login", key, "-u", "me", "--password-stdin"); code != 0 {
			t.Fatal(out)
		}
	}
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(fill, bytes.NewReader(make([]byte, 1<<20))); err == nil {
		t.Fatal("the disk is not full")
	}
	_ = fill.Close()
	if out, code := command(t, store, up.URL, canary, "login", host+"/new", "-u", "me", "--password-stdin"); code == 0 || !strings.Contains(out, "no space left") {
		t.Errorf("a login on a full disk: exit %d: %s", code, out)
	}
	for _, tt := range []struct{ key, left string }{{host, "/org"}, {host + "/org", ""}} {
		out, code := command(t, store, up.URL, "", "logout", tt.key)
		if code != 0 || !strings.HasPrefix(out, "logged out of "+tt.key+"\n") {
			t.Errorf("logout %s: exit %d: %s", tt.key, code, out)
		}
		data, err := os.ReadFile(store)
		if tt.left != "" && (err != nil || !strings.Contains(string(data), host+tt.left) || strings.Count(string(data), `"auth"`) != 1) {
			t.Errorf("left: %s, %v", data, err)
		}
		if tt.left == "" && !os.IsNotExist(err) {
			t.Errorf("left: %s, %v", data, err)
		}
	}
}
