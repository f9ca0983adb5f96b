package credentials

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/proxy/credential/dockerhelper"
	"github.com/sidemirror/sidemirror/proxy/credential/program"
	"github.com/sidemirror/sidemirror/test/process"
)

// real returns the helpers with the real program called docker-credential-NAME.
func real(t *testing.T, name string, env ...string) *dockerhelper.Helpers {
	t.Helper()
	dir := filepath.Dir(process.Path(t, "docker-credential-"+name))
	env = append([]string{"HOME=" + t.TempDir(), "PATH=/usr/local/bin:/usr/bin:/bin"}, env...)
	h := dockerhelper.New(program.NewRunner([]string{dir}, env))
	t.Cleanup(h.Close)
	return h
}

// An ECR on loopback that speaks GetAuthorizationToken. No cloud can be had here.
func TestAmazonsHelperGetsATokenFromECR(t *testing.T) {
	var asked atomic.Int32
	cloud := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if !strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetAuthorizationToken") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		asked.Add(1)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_ = json.NewEncoder(w).Encode(map[string]any{"authorizationData": []any{map[string]any{
			"authorizationToken": base64.StdEncoding.EncodeToString([]byte("AWS:" + canary)),
			"expiresAt":          float64(time.Now().Add(12 * time.Hour).Unix()),
			"proxyEndpoint":      "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com",
		}}})
	}))
	defer cloud.Close()
	h := real(t, "ecr-login", "AWS_ENDPOINT_URL="+cloud.URL, "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=x", "AWS_REGION=eu-west-1", "AWS_EC2_METADATA_DISABLED=true")
	for range 3 {
		c, err := h.Get(t.Context(), "ecr-login", "123456789012.dkr.ecr.eu-west-1.amazonaws.com")
		if err != nil || c.Username != "AWS" || c.Password.Reveal() != canary {
			t.Fatalf("%q, %v", c.Username, err)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("ECR was asked %d times", asked.Load())
	}
}

// It says "credentials not found" then, which must not count as anonymous.
func TestAmazonsHelperWithoutANetworkIsAFailure(t *testing.T) {
	h := real(t, "ecr-login", "AWS_ENDPOINT_URL=http://127.0.0.1:1", "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=x", "AWS_REGION=eu-west-1", "AWS_MAX_ATTEMPTS=1", "AWS_EC2_METADATA_DISABLED=true")
	c, err := h.Get(t.Context(), "ecr-login", "123456789012.dkr.ecr.eu-west-1.amazonaws.com")
	if err == nil || !c.IsZero() || h.Fault() == nil {
		t.Errorf("got %q, %v", c.Username, err)
	}
}

// A metadata server on loopback that has the machine's token, as Google's machines have.
func TestGooglesHelperGetsATokenFromTheMetadataServer(t *testing.T) {
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		if strings.HasSuffix(r.URL.Path, "/token") {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"access_token":%q,"expires_in":3599,"token_type":"Bearer"}`, canary)
		}
	}))
	defer metadata.Close()
	h := real(t, "gcr", "GCE_METADATA_HOST="+strings.TrimPrefix(metadata.URL, "http://"))
	c, err := h.Get(t.Context(), "gcr", "europe-docker.pkg.dev")
	if err != nil || c.Password.Reveal() != canary {
		t.Fatalf("%q, %v", c.Username, err)
	}
	if h.For("gcr", "registry.example") {
		t.Error("a registry of others may have Google's token")
	}
}

// Debian's docker-credential-pass with a real GnuPG key.
func TestDebiansPassHelperHasTheLoginThatDockerStored(t *testing.T) {
	home := t.TempDir()
	env := []string{"HOME=" + home, "GNUPGHOME=" + filepath.Join(home, "g"), "PATH=/usr/local/bin:/usr/bin:/bin"}
	run := func(stdin string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Env, cmd.Stdin = env, strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
	}
	run("", "mkdir", "-m", "700", filepath.Join(home, "g"))
	run("", "gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "", "--quick-gen-key", "me@pass.test", "default", "default", "never")
	t.Cleanup(func() { // the agent that gpg starts
		cmd := exec.Command("gpgconf", "--kill", "gpg-agent")
		cmd.Env = env
		_ = cmd.Run()
	})
	run("", "pass", "init", "me@pass.test")
	for server, user := range map[string]string{"quay.io": "me", "https://index.docker.io/v1/": "hub"} {
		run(fmt.Sprintf(`{"ServerURL":%q,"Username":%q,"Secret":%q}`, server, user, canary), process.Path(t, "docker-credential-pass"), "store")
	}
	h := real(t, "pass", env...)
	for server, want := range map[string]string{"quay.io": "me", "https://index.docker.io/v1/": "hub", "ghcr.io": ""} {
		c, err := h.Get(t.Context(), "pass", server)
		if err != nil || c.Username != want {
			t.Errorf("%s: %q, %v", server, c.Username, err)
		}
		if want != "" && c.Password.Reveal() != canary {
			t.Errorf("%s: another secret", server)
		}
	}
}
