package dockerhelper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/credential/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// helpers has a helper for each name, a shell script. Each run adds a line to the file that is
// returned as runs.
func helpers(t *testing.T, scripts map[string]string) (h *Helpers, runs func() int) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "runs")
	for name, text := range scripts {
		text = "#!/bin/sh\nread server || :\necho \"$server\" >>" + log + "\n" + text + "\n"
		if err := os.WriteFile(filepath.Join(dir, command(name)), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h = New(program.NewRunner([]string{dir}, []string{"PATH=/usr/bin:/bin"}))
	t.Cleanup(h.Close)
	return h, func() int {
		data, _ := os.ReadFile(log)
		return strings.Count(string(data), "\n")
	}
}

func TestAHelperIsAskedAsDockerAsksIt(t *testing.T) {
	h, runs := helpers(t, map[string]string{
		"echo":  `printf '{"ServerURL":"%s","Username":"%s %s","Secret":"s"}' "$server" "$1" "$server"`,
		"token": `echo '{"ServerURL":"x","Username":"<token>","Secret":"idt"}'`,
		"lines": `printf '%s' '{"Username":"_json_key","Secret":"{\n}\n"}'`,
	})
	for range 3 {
		if _, err := h.Get(t.Context(), "echo", "https://index.docker.io/v1/"); err == nil {
			t.Fatal("a colon in a user name cannot be sent")
		}
		c, err := h.Get(t.Context(), "echo", "quay.io")
		if err != nil || c.Username != "get quay.io" || c.Password.Reveal() != "s" || c.Generation == "" {
			t.Fatalf("%q, %v", c.Username, err)
		}
	}
	if n := runs(); n != 2 {
		t.Errorf("%d runs for two servers", n)
	}
	c, err := h.Get(t.Context(), "token", "quay.io")
	if err != nil || c.IdentityToken.Reveal() != "idt" || c.Username != "" {
		t.Errorf("an identity token: %q, %v", c.Username, err)
	}
	c, err = h.Get(t.Context(), "lines", "quay.io")
	if err != nil || c.Password.Reveal() != "{\n}\n" {
		t.Errorf("a secret of several lines: %v", err)
	}
}

func TestAHelperWithoutALoginMeansAnonymousUnlessItSaysSoForEveryFailure(t *testing.T) {
	nothing := `echo "credentials not found in native keychain"; exit 1`
	h, runs := helpers(t, map[string]string{"pass": nothing, "ecr-login": nothing})
	for range 5 {
		c, err := h.Get(t.Context(), "pass", "quay.io")
		if err != nil || !c.IsZero() {
			t.Errorf("%v", err)
		}
	}
	if n := runs(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if _, err := h.Get(t.Context(), "ecr-login", "1.dkr.ecr.eu-west-1.amazonaws.com"); err == nil {
		t.Error("what ecr-login says without a network counts as anonymous")
	}
}

func TestFailuresOfAHelperAreReportedWithoutWhatItPrinted(t *testing.T) {
	scripts := map[string]string{
		"fails":   `echo canary-secret; echo canary-secret >&2; exit 1`,
		"garbage": `echo canary-secret`,
		"array":   `echo '["canary-secret"]'`,
		"wrong":   `echo '{"Username":7,"Secret":"canary-secret"}'`,
		"empty":   ``,
		"endless": `exec yes canary-secret`,
		"zero":    `printf '{"Username":"me","Secret":"canary\\u0000secret\\u0000"}'`,
		"forks":   `(yes canary-secret >&2) & (sleep 1000) & echo canary-secret; exit 1`,
	}
	h, _ := helpers(t, scripts)
	for name := range scripts {
		c, err := h.Get(t.Context(), name, "quay.io")
		if err == nil || !c.IsZero() {
			t.Errorf("%s: no error", name)
			continue
		}
		fault := h.Fault()
		if fault == nil {
			t.Fatalf("%s: no fault", name)
		}
		for _, text := range []string{err.Error(), fault.Error(), problem.Hint(err)} {
			if strings.Contains(text, "canary") {
				t.Errorf("%s: %s", name, text)
			}
		}
		if !strings.Contains(err.Error(), command(name)) || problem.Hint(err) == "" && name != "endless" {
			t.Errorf("%s: %v (%s)", name, err, problem.Hint(err))
		}
	}
}

// docker-credential-gcr returns Google's token for any server that it is asked about.
func TestAHelperIsAskedAboutItsOwnRegistriesOnly(t *testing.T) {
	h, runs := helpers(t, map[string]string{"gcr": `echo '{"Username":"oauth2accesstoken","Secret":"t"}'`, "pass": `echo '{"Username":"me","Secret":"t"}'`})
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(`{"credsStore": "gcr"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	file := &credential.File{Path: path, Helpers: h}
	bound := &Bound{Helpers: h, Rules: []Rule{{"gcr.io", "gcr"}, {"*.pkg.dev", "gcr"}, {"*.corp.test:5000", "pass"}}}
	for registry, want := range map[string]bool{
		"gcr.io": true, "europe-docker.pkg.dev": true,
		"evil.test": false, "gcr.io.evil.test": false, "docker.io": false, "quay.io": false, "pkg.dev": false,
		"gcr.io:5000": false, "evilgcr.io": false,
	} {
		for name, source := range map[string]credential.Source{"credsStore": file, "credentials.helpers": bound} {
			c, err := source.Lookup(t.Context(), registry, "a/b")
			if err != nil || c.IsZero() == want {
				t.Errorf("%s, %s: %q, %v", name, registry, c.Username, err)
			}
		}
	}
	if n := runs(); n != 2 {
		t.Errorf("asked %d times", n)
	}
	if c, err := bound.Lookup(t.Context(), "r.corp.test:5000", ""); err != nil || c.Username != "me" {
		t.Errorf("%v", err)
	}
}

func TestTheRegistriesOfEachCloud(t *testing.T) {
	h := New(program.NewRunner(nil, nil))
	for registry, name := range map[string]string{
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com":     "ecr-login",
		"123456789012.dkr.ecr-fips.us-gov-1.amazonaws.com": "ecr-login",
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn": "ecr-login",
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu": "ecr-login",
		"123456789012.dkr-ecr.eu-west-1.on.aws":            "ecr-login",
		"public.ecr.aws":                                   "ecr-login",
		"corp.azurecr.io":                                  "acr-env",
		"us.gcr.io":                                        "gcr",
		"us-central1-docker.pkg.dev":                       "gcloud",
	} {
		for _, other := range []string{"ecr-login", "acr-env", "gcr", "gcloud"} {
			if google := name == "gcr" || name == "gcloud"; google && (other == "gcr" || other == "gcloud") {
				continue
			}
			if h.For(other, registry) != (other == name) {
				t.Errorf("%s for %s: %v", other, registry, h.For(other, registry))
			}
		}
	}
	if !h.For("pass", "any.test") {
		t.Error("a store of any registry's logins is not asked")
	}
}

func TestAMissingHelperIsNamed(t *testing.T) {
	h, _ := helpers(t, nil)
	bound := &Bound{Helpers: h, Rules: []Rule{{"quay.io", "pass"}}}
	if err := bound.Fault(); err == nil || !strings.Contains(err.Error(), "docker-credential-pass is not installed") || problem.Hint(err) == "" {
		t.Errorf("%v", err)
	}
	if _, err := bound.Lookup(t.Context(), "quay.io", ""); err == nil {
		t.Error("it counts as anonymous")
	}
}
