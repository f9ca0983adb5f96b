package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

const rightPassword = "c4n4ry-right"

// stubRegistry accepts me with rightPassword, by Basic or by a token of its own server.
func stubRegistry(t *testing.T, bearer bool) *httptest.Server {
	t.Helper()
	var srv *httptest.Server
	isMe := func(r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		return user == "me" && password == rightPassword
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case bearer && r.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="stub"`, srv.URL))
			w.WriteHeader(http.StatusUnauthorized)
		case !bearer && !isMe(r):
			w.Header().Set("WWW-Authenticate", `Basic realm="stub"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	mux.HandleFunc("GET /token", func(w http.ResponseWriter, r *http.Request) {
		if !isMe(r) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, `{"token": "good"}`)
	})
	srv = httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

// host is a host's configuration with one registry at upstream.
type host struct {
	config, store, registry string
}

func newHost(t *testing.T, upstream, more string) host {
	t.Helper()
	dir := t.TempDir()
	h := host{
		config:   filepath.Join(dir, "config.toml"),
		store:    filepath.Join(dir, "state", "credentials.json"),
		registry: strings.TrimPrefix(upstream, "http://"),
	}
	// The Docker of the machine that runs the tests is none of theirs.
	text := fmt.Sprintf("engine.docker.enabled = false\ncredentials.store = %q\n[registry.%q]\nupstreams = [%q]\n%s", h.store, h.registry, upstream, more)
	if err := os.WriteFile(h.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// run runs the real command line.
func (h host) run(t *testing.T, stdin io.Reader, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"--config", h.config}, args...), stdin, &out, &errs)
	for _, text := range []string{out.String(), errs.String()} {
		if strings.Contains(text, "c4n4ry") {
			t.Errorf("shows the password: %s", text)
		}
	}
	return code, out.String(), errs.String()
}

// kept gives the login that the daemon would use.
func (h host) kept(t *testing.T, repository string) string {
	t.Helper()
	c, err := credential.OpenStore(h.store).Lookup(t.Context(), h.registry, repository)
	if err != nil {
		t.Fatal(err)
	}
	if c.IsZero() {
		return ""
	}
	return c.Username + ":" + c.Password.Reveal()
}

func TestAcceptedLoginIsKept(t *testing.T) {
	for _, bearer := range []bool{false, true} {
		t.Run(fmt.Sprintf("bearer=%t", bearer), func(t *testing.T) {
			h := newHost(t, stubRegistry(t, bearer).URL, "")
			code, out, errs := h.run(t, strings.NewReader(rightPassword+"\n"), "login", h.registry+"/org", "-u", "me", "--password-stdin")
			if code != 0 || errs != "" {
				t.Fatalf("exit %d: %s", code, errs)
			}
			for _, part := range []string{h.registry + "/org", "as me", h.store} {
				if !strings.Contains(out, part) {
					t.Errorf("%q is not in %q", part, out)
				}
			}
			if got := h.kept(t, "org/image"); got != "me:"+rightPassword {
				t.Errorf("kept %q", got)
			}
			if got := h.kept(t, "other/image"); got != "" {
				t.Errorf("a login for one namespace serves another: %q", got)
			}
		})
	}
}

func TestRefusedLoginKeepsNothingAndLosesNothing(t *testing.T) {
	for _, bearer := range []bool{false, true} {
		t.Run(fmt.Sprintf("bearer=%t", bearer), func(t *testing.T) {
			h := newHost(t, stubRegistry(t, bearer).URL, "")
			refused := func(before string) {
				t.Helper()
				code, out, errs := h.run(t, strings.NewReader("c4n4ry-wrong"), "login", h.registry, "-u", "me", "--password-stdin")
				if code != exitFailed || out != "" || !strings.Contains(errs, "refused the login") || !strings.Contains(errs, "nothing was stored") {
					t.Errorf("exit %d, %q, %q", code, out, errs)
				}
				if got := h.kept(t, "a/b"); got != before {
					t.Errorf("kept %q, was %q", got, before)
				}
			}
			refused("")
			if code, _, errs := h.run(t, strings.NewReader(rightPassword), "login", h.registry, "-u", "me", "--password-stdin"); code != 0 {
				t.Fatal(errs)
			}
			refused("me:" + rightPassword)
		})
	}
}

func TestLoginToARegistryThatIsAwayIsNotCalledRefused(t *testing.T) {
	srv := stubRegistry(t, false)
	h := newHost(t, srv.URL, "")
	srv.Close()
	code, _, errs := h.run(t, strings.NewReader(rightPassword), "login", h.registry, "-u", "me", "--password-stdin")
	if code != exitFailed || strings.Contains(errs, "refused the login") || !strings.Contains(errs, "nothing was stored") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if got := h.kept(t, "a/b"); got != "" {
		t.Errorf("kept %q", got)
	}
}

func TestLoginPassesOnWhatTheRegistrySays(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		header http.Header
		body   string
		want   []string
	}{
		"busy": {429, http.Header{"Retry-After": {"90"}}, `{"errors":[{"code":"TOOMANYREQUESTS","message":"too many failed logins"}]}`,
			[]string{"could not be checked", "too many failed logins", "try again in 1m30s"}},
		"refused with a reason": {403, nil, `{"errors":[{"code":"DENIED","message":"the account is locked"}]}`,
			[]string{"refused the login", "the account is locked"}},
		"failing": {503, http.Header{"Content-Type": {"text/plain"}}, "down for maintenance", []string{"could not be checked", "503"}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") == "" {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				maps.Copy(w.Header(), tt.header)
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			}))
			defer srv.Close()
			h := newHost(t, srv.URL, "")
			code, _, errs := h.run(t, strings.NewReader(rightPassword), "login", h.registry, "-u", "me", "--password-stdin")
			if code != exitFailed {
				t.Errorf("exit %d", code)
			}
			for _, want := range tt.want {
				if !strings.Contains(errs, want) {
					t.Errorf("%q is not in %q", want, errs)
				}
			}
		})
	}
}

func TestALoginForARegistryWithoutATableSaysThatItMakesItKnown(t *testing.T) {
	for name, tt := range map[string]struct {
		table, registry string
		found           bool
		note, hint      bool
	}{
		"no table":                 {"", "r.example:5000", true, true, false},
		"in another file":          {"", "r.example:5000", false, true, true},
		"the wildcard":             {"[registry.\"*\"]\n", "r.example:5000", true, true, false},
		"a table":                  {"[registry.\"r.example:5000\"]\n", "r.example:5000", true, false, false},
		"an upstream of another":   {"[registry.\"a.example\"]\nupstreams = [\"https://r.example:5000\"]\n", "r.example:5000", false, false, false},
		"Docker Hub":               {"", "docker.io", true, false, false},
		"one of the built-in ones": {"", "ghcr.io", true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := config.Load(newHost(t, "http://127.0.0.1:1", tt.table).config, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := served(c, tt.registry); err != nil {
				t.Error(err)
			}
			note := knownByLogin(c, tt.registry, tt.found)
			if (note != nil) != tt.note || note != nil && (note.Hint != "") != tt.hint {
				t.Errorf("note %+v", note)
			}
		})
	}
}

func TestALoginIsNotSentToWhatLooksLikeAPublicRegistry(t *testing.T) {
	for registry, near := range map[string]string{
		"gchr.io": "ghcr.io", "ghcr.oi": "ghcr.io", "qauy.io": "quay.io", "docker.oi": "docker.io", "mcr.microsft.com": "mcr.microsoft.com",
		"gcr.io": "", "lscr.io": "", "icr.io": "", "us.gcr.io": "", "ghcr.io": "", "registry.corp.example": "", "quay.corp.example": "",
	} {
		if got := misspelt(registry); got != near {
			t.Errorf("%s is taken for %q, want %q", registry, got, near)
		}
	}
	for table, want := range map[string]bool{"": true, "[registry.\"gchr.io\"]\n": false} {
		c, err := config.Load(newHost(t, "http://127.0.0.1:1", table).config, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := served(c, "gchr.io"); (err != nil) != want {
			t.Errorf("with %q: %v", table, err)
		}
	}
}

func TestALoginIsNotSentToThisHostWithoutATable(t *testing.T) {
	h := newHost(t, "http://127.0.0.1:1", "")
	for _, registry := range []string{"localhost:5000", "127.0.0.1:5000", "169.254.169.254"} {
		code, _, errs := h.run(t, strings.NewReader(rightPassword), "login", registry, "-u", "me", "--password-stdin")
		if code != exitFailed || !strings.Contains(errs, "loopback") {
			t.Errorf("%s: exit %d: %s", registry, code, errs)
		}
	}
}

func TestAPlanHasTheRegistriesOfLogins(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{
		"var/lib/sidemirror-logins/registry-r.example+5000@org.cred", "var/lib/sidemirror-logins/registry-q.example.elsewhere",
		"var/lib/sidemirror-logins/other", "etc/containerd/config.toml", "etc/containerd/certs.d/x/hosts.toml", "usr/bin/containerd",
	} {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"plan", "--root", root, "--engine", "containerd"}, nil, &out, &errs)
	for _, registry := range []string{"docker.io", "r.example:5000", "q.example"} {
		if want := "/etc/containerd/certs.d/" + registry + "/hosts.toml"; !strings.Contains(out.String(), want) {
			t.Errorf("exit %d, %q is not in %s%s", code, want, &out, &errs)
		}
	}
}

func TestLoginWhereClientsLogInThemselvesSaysSo(t *testing.T) {
	h := newHost(t, stubRegistry(t, false).URL, "client_auth = \"relay\"\n")
	code, _, errs := h.run(t, strings.NewReader(rightPassword), "login", h.registry, "-u", "me", "--password-stdin")
	if code != 0 || !strings.Contains(errs, "relay") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestPasswordIsReadAsItWasWritten(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"p\n", "p"}, {"p\r\n", "p"}, {"p", "p"}, {" p \n", " p "}, {"p\n\n", "p\n"}, {"p\tq:r\n", "p\tq:r"},
	} {
		c, err := prompt{in: strings.NewReader(tt.in)}.credential("me", true)
		if err != nil || c.Username != "me" || c.Password.Reveal() != tt.want {
			t.Errorf("%q became %q, %v", tt.in, c.Password.Reveal(), err)
		}
	}
	c, err := prompt{in: strings.NewReader("idt\n")}.credential("<token>", true)
	if err != nil || c.Username != "" || c.IdentityToken.Reveal() != "idt" || !c.Password.IsZero() {
		t.Errorf("identity token: %q %q, %v", c.Username, c.IdentityToken.Reveal(), err)
	}
}

func TestLoginThatCannotBeMeantIsWrongUsage(t *testing.T) {
	h := newHost(t, "http://127.0.0.1:1", "")
	for name, tt := range map[string]struct {
		in   io.Reader
		args []string
		want string
	}{
		"no registry":              {strings.NewReader("p"), nil, "login needs a registry"},
		"login in the name":        {strings.NewReader("p"), []string{"me:c4n4ry@quay.io"}, "HOST"},
		"no user":                  {strings.NewReader("p"), []string{h.registry, "--password-stdin"}, "--username"},
		"no terminal":              {strings.NewReader("p"), []string{h.registry, "-u", "me"}, "--password-stdin"},
		"no terminal and no user":  {strings.NewReader("p"), []string{h.registry}, "--username"},
		"empty password":           {strings.NewReader("\n"), []string{h.registry, "-u", "me", "--password-stdin"}, "empty"},
		"colon in the user":        {strings.NewReader("p"), []string{h.registry, "-u", "a:b", "--password-stdin"}, "the username has a colon"},
		"endless password":         {endless{}, []string{h.registry, "-u", "me", "--password-stdin"}, "longer than 65536 bytes"},
		"password on command line": {strings.NewReader(""), []string{h.registry, "-u", "me", "--password", "x"}, "unknown flag"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := h.run(t, tt.in, append([]string{"login"}, tt.args...)...)
			if code != exitUsage || !strings.Contains(errs, tt.want) {
				t.Errorf("exit %d: %s", code, errs)
			}
		})
	}
	if _, err := os.Stat(h.store); !os.IsNotExist(err) {
		t.Errorf("a store was made: %v", err)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

func TestLogoutForgetsThatLoginOnly(t *testing.T) {
	h := newHost(t, "http://127.0.0.1:1", "")
	store := credential.OpenStore(h.store)
	for _, key := range []string{h.registry, h.registry + "/org", "docker.io"} {
		if err := store.Put(t.Context(), key, credential.Credential{Username: "me", Password: credential.NewSecret(rightPassword)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ key, want string }{
		{h.registry, "logged out of " + h.registry + "\nstill logged in to " + h.registry + "/org\n"},
		{h.registry, "not logged in to " + h.registry + "\nstill logged in to " + h.registry + "/org\n"},
		{h.registry + "/org", "logged out of " + h.registry + "/org\n"},
		{"https://index.docker.io/v1/", "logged out of docker.io\n"},
		{"docker.io", "not logged in to docker.io\n"},
	} {
		if code, out, errs := h.run(t, nil, "logout", tt.key); code != 0 || out != tt.want || errs != "" {
			t.Errorf("logout %s: exit %d, %q, %q; want %q", tt.key, code, out, errs, tt.want)
		}
	}
	data, err := os.ReadFile(h.store)
	if err != nil {
		t.Fatal(err)
	}
	var left struct{ Auths map[string]any }
	if err := json.Unmarshal(data, &left); err != nil || len(left.Auths) != 0 {
		t.Errorf("left: %s, %v", data, err)
	}
}

func TestStoreInTroubleFailsTheCommandThatNeedsIt(t *testing.T) {
	h := newHost(t, stubRegistry(t, false).URL, "")
	if err := os.MkdirAll(filepath.Dir(h.store), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.store, []byte(`{"auths": {"x": `), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"login", h.registry, "-u", "me", "--password-stdin"}, {"logout", h.registry}} {
		code, _, errs := h.run(t, strings.NewReader(rightPassword), args...)
		if code != exitFailed || !strings.Contains(errs, h.store) {
			t.Errorf("%s: exit %d: %s", args[0], code, errs)
		}
	}
}

func TestLoginSaysThatDockerUsesItInAnotherWay(t *testing.T) {
	old := engine.State{Engine: "docker", Version: "26.1.5", HubOnly: true}
	note := noteHubOnly([]engine.State{{Engine: "containerd"}, old}, "http://127.0.0.1:305", "ghcr.io")
	if note == nil || !strings.Contains(note.Text, "docker 26.1.5 pulls through sidemirror from Docker Hub only") || note.Hint != "pull as localhost:305/ghcr.io/…" {
		t.Errorf("%+v", note)
	}
	if note := noteHubOnly([]engine.State{{Engine: "docker"}, {Engine: "containerd"}}, "http://127.0.0.1:305", "ghcr.io"); note != nil {
		t.Errorf("a Docker that mirrors every registry: %+v", note)
	}
}

func TestConfigShowNamesTheRegistriesThatALoginMakesKnown(t *testing.T) {
	h := newHost(t, "http://127.0.0.1:1", "")
	c, err := config.Load(h.config, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := writeLoggedIn(&out, c, []string{"ghcr.io", "r.example:5000"}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "# r.example:5000 has no table") || strings.Contains(got, "ghcr.io") {
		t.Errorf("%q", got)
	}
}
