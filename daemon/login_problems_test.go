package daemon

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/peer"
)

const problemCanary = "canary-secret-2e07"

// problemsRig is a proxy in front of a registry that accepts one password, at first the right one.
type problemsRig struct {
	*registryProxy
	url, host, store string
	accepted         atomic.Value
}

func newProblemsRig(t *testing.T, settings string) *problemsRig {
	t.Helper()
	rig := &problemsRig{}
	rig.accepted.Store(problemCanary)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != rig.accepted.Load() {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(up.Close)
	rig.host = strings.TrimPrefix(up.URL, "http://")
	dir := t.TempDir()
	rig.store = filepath.Join(dir, "credentials.json")
	file := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("listen = ['127.0.0.1:1']\ntrust.uids = [%d]\ncache.dir = ''\ncredentials.store = %q\n%s\n[registry.%q]\nupstreams = [%q]\n",
		os.Geteuid(), rig.store, strings.ReplaceAll(settings, "HOST", rig.host), rig.host, up.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	if rig.registryProxy, err = newProxy(c, c.Listen, proxyParts{version: "test", log: log, trust: peer.NewTrust(c.Trust.UIDs, []string{"*"}, nil)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rig.Close)
	server := httptest.NewUnstartedServer(rig)
	server.Config.ConnContext = peer.ConnContext
	server.Start()
	t.Cleanup(server.Close)
	rig.url = server.URL
	return rig
}

// pull asks for an image and returns the status.
func (r *problemsRig) pull(t *testing.T, repository string) int {
	t.Helper()
	resp, err := http.Get(r.url + "/v2/" + repository + "/manifests/v1?ns=" + r.host)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func (r *problemsRig) login(t *testing.T, password string) {
	t.Helper()
	err := credential.OpenStore(r.store).Put(t.Context(), r.host, credential.Credential{Username: "me", Password: credential.NewSecret(password)})
	if err != nil {
		t.Fatal(err)
	}
}

// codes returns the codes of the problems, and fails if one has a secret or no hint.
func (r *problemsRig) codes(t *testing.T) (codes []string) {
	t.Helper()
	for _, p := range r.Problems() {
		if strings.Contains(p.Error()+p.Hint, "canary") {
			t.Errorf("a problem has the secret: %v; %s", p, p.Hint)
		}
		if p.Hint == "" {
			t.Errorf("no hint: %v", p)
		}
		codes = append(codes, string(p.Code))
	}
	return codes
}

func TestALoginThatIsRefusedIsAProblemUntilItIsReplaced(t *testing.T) {
	r := newProblemsRig(t, "")
	r.login(t, problemCanary)
	r.pull(t, "team/app")
	if codes := r.codes(t); len(codes) != 0 {
		t.Errorf("with a good login: %q", codes)
	}
	if inUse, _ := r.Logins(); len(inUse) != 1 || inUse[0].Source != "store" || inUse[0].Host != r.host {
		t.Errorf("logins in use: %v", inUse)
	}
	r.accepted.Store("canary-other")
	r.pull(t, "team/app")
	problems := r.Problems()
	if codes := r.codes(t); !slices.Equal(codes, []string{"login-refused"}) {
		t.Fatalf("after the refusal: %q", codes)
	}
	if p := problems[0]; p.Hint != "sidemirror login "+r.host || !strings.Contains(p.Text, r.host+"/team/app") {
		t.Errorf("%v; %s", p, p.Hint)
	}
	if !strings.Contains(problems[0].Error(), "was refused") {
		t.Errorf("it reports %q", problems[0].Error())
	}
	r.login(t, "canary-other") // without a pull
	deadline := time.Now().Add(10 * time.Second)
	for codes := r.codes(t); len(codes) != 0; codes = r.codes(t) {
		if time.Now().After(deadline) {
			t.Fatalf("after another login: %q", codes)
		}
	}
}

func TestARefusalIsForgottenWhenTheRegistryAcceptsTheLogin(t *testing.T) {
	r := newProblemsRig(t, "")
	r.login(t, problemCanary)
	r.pull(t, "team/app") // so that a refusal is held back for this repository alone
	r.accepted.Store("canary-other")
	r.pull(t, "team/app")
	r.accepted.Store(problemCanary)
	r.pull(t, "team/other")
	if codes := r.codes(t); len(codes) != 0 {
		t.Errorf("%q", codes)
	}
}

func TestSourcesWithAFaultAreProblems(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	script("broken", "echo "+problemCanary+"; exit 1")
	pair := base64.StdEncoding.EncodeToString([]byte("me:" + problemCanary))
	readable := write("readable.json", `{"auths":{"other.example":{"auth":"`+pair+`"}}}`, 0o644)
	torn := write("torn.json", `{"auths":{"x":{"auth":"`+pair, 0o600)
	missing := filepath.Join(dir, "missing.json")
	for name, tt := range map[string]struct{ settings, code, text string }{
		"a helper that fails":             {"credentials.helpers = ['HOST=broken']", "helper-failed", "docker-credential-broken failed"},
		"a helper that is missing":        {"credentials.helpers = ['HOST=none']", "helper-missing", "docker-credential-none"},
		"a helper that a file names":      {"credentials.files = ['" + write("named.json", `{"credsStore":"broken"}`, 0o600) + "']", "helper-failed", "docker-credential-broken failed"},
		"a file that every user can read": {"credentials.files = ['" + readable + "']", "credentials-unreadable", readable},
		"a file that is not whole":        {"credentials.files = ['" + torn + "']", "credentials-unreadable", torn},
		"a file that is missing":          {"credentials.files = ['" + missing + "']", "credentials-unreadable", "no such file"},
		"a configuration of plugins":      {"credentials.plugins = '" + torn + "'\ncredentials.plugin_dir = '" + dir + "'", "plugins-unusable", torn},
	} {
		t.Run(name, func(t *testing.T) {
			r := newProblemsRig(t, "credentials.helper_dirs = ['"+dir+"']\n"+tt.settings)
			r.pull(t, "team/app")
			for _, s := range r.logins.sources {
				s.examined.Store(nil) // which a second does otherwise
			}
			if codes := r.codes(t); !slices.Equal(codes, []string{tt.code}) {
				t.Fatalf("%q, want %q: %v", codes, tt.code, r.Problems())
			}
			if p := r.Problems()[0]; !strings.Contains(p.Error(), tt.text) {
				t.Errorf("it does not name %q: %v", tt.text, p)
			}
		})
	}
}
