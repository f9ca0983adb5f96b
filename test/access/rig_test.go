// Package access tests, against the real binary, who may have what and which upstream gets
// which credential.
package access

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	repo     = "team/app"
	user     = "robot"
	password = "canary-password-7d21"
)

var (
	image = quirky.NewImage(false, "access", 100<<10, 100)
	layer = image.Blobs[1]
	moved = quirky.NewImage(false, "access, moved", 100<<10, 200)
)

// untrusted is a client of a user whom the daemon does not trust.
func untrusted(t *testing.T) *http.Client { return harness.ClientAs(t, harness.Untrusted) }

// of asks for something of team/app in the registry called name, as containerd does.
func of(name, what string) string { return "/v2/" + repo + "/" + what + "?ns=" + name }

// bait is a mirror that asks every client for a login and records what it is sent.
type bait struct {
	*httptest.Server
	scheme string

	mu   sync.Mutex
	seen []string // Authorization headers and bodies, of its token server too
	hits int
}

func newBait(t *testing.T, scheme string) *bait {
	t.Helper()
	b := &bait{scheme: scheme}
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

func (b *bait) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	_, _ = body.ReadFrom(r.Body)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hits++
	if h := r.Header.Get("Authorization"); h != "" {
		b.seen = append(b.seen, h)
	}
	if body.Len() > 0 {
		b.seen = append(b.seen, body.String())
	}
	if r.URL.Path == "/token" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	challenge := `Basic realm="mirror"`
	if b.scheme == "Bearer" {
		challenge = `Bearer realm="` + b.URL + `/token",service="mirror"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	w.WriteHeader(http.StatusUnauthorized)
}

// caught returns the credentials that the mirror was sent.
func (b *bait) caught() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.seen...)
}

func (b *bait) asked() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.hits
}

// command runs sidemirror with a configuration and returns what it printed.
func command(t *testing.T, config, stdin string, args ...string) (output string, code int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), harness.Binary(t), append([]string{"--config", file}, args...)...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
