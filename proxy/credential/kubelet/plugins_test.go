package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/sidemirror/sidemirror/proxy/credential/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const v1 = "credentialprovider.kubelet.k8s.io/v1"

// rig is a folder with plugins, shell scripts that get the request as $request, and with the
// kubelet's configuration of them.
type rig struct{ dir string }

func newRig(t *testing.T, plugins map[string]string) rig {
	t.Helper()
	r := rig{t.TempDir()}
	for name, text := range plugins {
		text = "#!/bin/sh\nrequest=$(cat)\necho \"$request\" >>" + r.dir + "/runs\n" + text + "\n"
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r rig) runs() int {
	data, _ := os.ReadFile(r.dir + "/runs")
	return strings.Count(string(data), "\n")
}

// open returns the plugins of a configuration.
func (r rig) open(t *testing.T, config string) *Plugins {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := New(path, program.NewRunner([]string{r.dir}, []string{"PATH=/usr/bin:/bin"}))
	t.Cleanup(p.Close)
	return p
}

// configured is a configuration with one provider per name, for images that match pattern.
func configured(pattern string, names ...string) string {
	text := "kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n"
	for _, name := range names {
		text += fmt.Sprintf("- name: %s\n  matchImages: [%q]\n  defaultCacheDuration: 1h\n  apiVersion: %s\n  args: [one, two]\n  env: [{name: WHO, value: me}]\n", name, pattern, v1)
	}
	return text
}

func answers(keyType, duration, auth string) string {
	return fmt.Sprintf(`printf '%%s' '{"kind":"CredentialProviderResponse","apiVersion":"%s","cacheKeyType":"%s",%s"auth":%s}'`, v1, keyType, duration, auth)
}

func user(t *testing.T, p *Plugins, registry, repository string) string {
	t.Helper()
	c, err := p.Lookup(t.Context(), registry, repository)
	if err != nil {
		t.Fatalf("%s/%s: %v", registry, repository, err)
	}
	return c.Username
}

func TestAPluginIsAskedAsTheKubeletAsksIt(t *testing.T) {
	r := newRig(t, map[string]string{"x": `[ "$1 $2 $WHO" = "one two me" ] || exit 3
case $request in *'"image":"docker.io/library/alpine"'*) ;; *) exit 4 ;; esac
case $request in *'"kind":"CredentialProviderRequest"'*) ;; *) exit 5 ;; esac
case $request in *'"apiVersion":"` + v1 + `"'*) ;; *) exit 6 ;; esac
` + answers("Image", "", `{"docker.io":{"username":"me","password":"p"}}`)})
	if got := user(t, r.open(t, configured("docker.io", "x")), "docker.io", "library/alpine"); got != "me" {
		t.Errorf("got %q", got)
	}
}

func TestAnswersAreStoredForWhatTheySayTheyAreFor(t *testing.T) {
	images := [][2]string{{"a.test", "x"}, {"a.test", "x"}, {"a.test", "y"}, {"b.test", "x"}, {"b.test", "y"}, {"a.test", "x"}}
	for name, tt := range map[string]struct {
		keyType, duration string
		want              int
	}{
		"Image":                       {"Image", "", 4},
		"Registry":                    {"Registry", "", 2},
		"Global":                      {"Global", "", 1},
		"Global, not to be stored":    {"Global", `"cacheDuration":"0s",`, 6},
		"Image, for another duration": {"Image", `"cacheDuration":"6h0m0s",`, 4},
		"null means the default":      {"Registry", `"cacheDuration":null,`, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, map[string]string{"x": answers(tt.keyType, tt.duration, `{"a.test":{"username":"a","password":"p"},"b.test":{"username":"b","password":"p"}}`)})
			p := r.open(t, configured("*.test", "x"))
			for _, image := range images {
				if got := user(t, p, image[0], image[1]); got != image[0][:1] {
					t.Errorf("%s/%s: got %q", image[0], image[1], got)
				}
			}
			if r.runs() != tt.want {
				t.Errorf("%d runs, want %d", r.runs(), tt.want)
			}
		})
	}
}

func TestManyPullsAtOnceRunAPluginOnce(t *testing.T) {
	r := newRig(t, map[string]string{"x": "sleep 0.3\n" + answers("Registry", "", `{"a.test":{"username":"me","password":"p"}}`)})
	p := r.open(t, configured("a.test", "x"))
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if c, err := p.Lookup(t.Context(), "a.test", fmt.Sprint("image", i%5)); err != nil || c.Username != "me" {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if r.runs() != 1 {
		t.Errorf("%d runs", r.runs())
	}
}

func TestTheFirstPluginThatHasALoginWins(t *testing.T) {
	r := newRig(t, map[string]string{
		"a": answers("Image", "", `{}`), "b": "exit 1",
		"c": answers("Image", "", `{"*.test":{"username":"c","password":"p"}}`),
		"d": answers("Image", "", `{"*.test":{"username":"d","password":"p"}}`),
	})
	p := r.open(t, configured("*.test", "a", "b", "c", "d"))
	if got := user(t, p, "a.test", "x"); got != "c" {
		t.Errorf("got %q", got)
	}
	if p.Fault() == nil {
		t.Error("the one that fails is not reported")
	}
	if got := user(t, p, "other.example", "x"); got != "" || r.runs() != 3 {
		t.Errorf("an image that none is for: %q, %d runs", got, r.runs())
	}
}

func TestAnswersThatTheKubeletRefusesAreFaults(t *testing.T) {
	for name, text := range map[string]string{
		"fails":            `echo canary-secret; echo canary-secret >&2; exit 1`,
		"garbage":          `echo canary-secret`,
		"another version":  strings.ReplaceAll(answers("Image", "", `{}`), v1, v1+"beta1"),
		"another kind":     strings.ReplaceAll(answers("Image", "", `{}`), "CredentialProviderResponse", "Secret"),
		"no cacheKeyType":  answers("", "", `{}`),
		"a wrong duration": answers("Image", `"cacheDuration":"soon",`, `{}`),
		"endless":          `exec yes canary-secret`,
		"a colon":          answers("Image", "", `{"*.test":{"username":"a:b","password":"canary-secret"}}`),
	} {
		t.Run(name, func(t *testing.T) {
			p := newRig(t, map[string]string{"x": text}).open(t, configured("*.test", "x"))
			c, err := p.Lookup(t.Context(), "a.test", "x")
			if err == nil || !c.IsZero() {
				t.Fatal("no error")
			}
			if strings.Contains(err.Error()+p.Fault().Error(), "canary") {
				t.Errorf("quotes what it printed: %v", err)
			}
		})
	}
}

func TestConfigurationsAreReadAsStrictlyAsTheKubeletReadsThem(t *testing.T) {
	r := newRig(t, map[string]string{"x": answers("Image", "", `{}`), "y": answers("Image", "", `{}`)})
	good := configured("*.test", "x")
	if err := r.open(t, good).Fault(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"an unknown field":            {"  args:", "  arguments:"},
		"a field that is there twice": {"  args: [one, two]", "  args: [one, two]\n  args: [three]"},
		"another kind":                {"CredentialProviderConfig", "KubeletConfiguration"},
		"another version":             {"kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v2"},
		"an unknown API":              {v1, "credentialprovider.kubelet.k8s.io/v2"},
		"no name":                     {"name: x", "name: \"\""},
		"a path as the name":          {"name: x", "name: ../x"},
		"no images":                   {`["*.test"]`, "[]"},
		"a wildcard without an end":   {`["*.test"]`, `["[a.test"]`},
		"no duration":                 {"  defaultCacheDuration: 1h\n", ""},
		"a negative duration":         {"1h", "-1h"},
		"a number as the duration":    {"1h", "5"},
	} {
		if p := r.open(t, strings.Replace(good, change[0], change[1], 1)); p.Fault() == nil {
			t.Errorf("%s is accepted", name)
		} else if _, err := p.Lookup(t.Context(), "a.test", "x"); err == nil {
			t.Errorf("%s: counts as anonymous", name)
		}
	}
	if p := r.open(t, configured("*.test", "x", "x")); p.Fault() == nil {
		t.Error("a name that is there twice is accepted")
	}
	if p := r.open(t, "kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\n"); p.Fault() == nil {
		t.Error("a configuration without providers is accepted")
	}
}

func TestAFolderOfConfigurationsIsOneConfiguration(t *testing.T) {
	r := newRig(t, map[string]string{"x": answers("Image", "", `{"*.test":{"username":"x","password":"p"}}`), "second": answers("Image", "", `{"*.test":{"username":"second","password":"p"}}`)})
	dir := t.TempDir()
	for name, text := range map[string]string{"b.yaml": configured("*.test", "x"), "a.yml": configured("*.test", "second"), "notes.txt": "canary", "z.json": `{"kind":"CredentialProviderConfig","apiVersion":"kubelet.config.k8s.io/v1","providers":[{"name":"z","matchImages":["z.test"],"defaultCacheDuration":"1h","apiVersion":"` + v1 + `","tokenAttributes":{"serviceAccountTokenAudience":"x","requireServiceAccount":true}}]}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := New(dir, program.NewRunner([]string{r.dir}, []string{"PATH=/usr/bin:/bin"}))
	defer p.Close()
	if got := user(t, p, "a.test", "x"); got != "second" {
		t.Errorf("the files are not in lexical order: got %q", got)
	}
	if err := p.Fault(); err == nil || !strings.Contains(err.Error(), "service account token of a pod: z") {
		t.Errorf("the plugin that needs a pod's token is not named: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "c.yaml"), []byte(configured("*.test", "x")), 0o600); err != nil {
		t.Fatal(err)
	}
	if New(dir, program.NewRunner([]string{r.dir}, nil)).Fault() == nil {
		t.Error("a name in two files is accepted")
	}
	if err := os.Chmod(filepath.Join(dir, "a.yml"), 0o666); err != nil {
		t.Fatal(err)
	}
	if New(dir, program.NewRunner([]string{r.dir}, nil)).Fault() == nil {
		t.Error("a file that every user can write to is accepted")
	}
}

func TestKeysOfAnAnswerMatchAsTheKubeletMatchesThem(t *testing.T) {
	for _, tt := range []struct{ keys, image, want string }{
		{"a.test", "a.test/x", "a.test"},
		{"a.test a.test/team", "a.test/team/x", "a.test/team"},
		{"a.test a.test/team", "a.test/teamwork", "a.test/team"},
		{"a.test/team", "a.test/other", ""},
		{"https://a.test/v1/ b.test", "a.test/x", "https://a.test/v1/"},
		{"https://a.test/v2/team", "a.test/team/x", "https://a.test/v2/team"},
		{"*.test", "a.test/x", "*.test"},
		{"*.test a.test", "a.test/x", "a.test"},
		{"*.test", "a.b.test/x", ""},
		{"a.test:5000", "a.test/x", ""},
		{"a.test", "a.test:5000/x", ""},
		{"*.test:5000", "a.test:5000/x", "*.test:5000"},
		{"index.docker.io", "docker.io/library/x", "index.docker.io"},
		{"https://index.docker.io/v1/", "docker.io/library/x", "https://index.docker.io/v1/"},
		{"docker.io index.docker.io", "docker.io/library/x", "docker.io"},
	} {
		keys := map[string]string{}
		for _, key := range strings.Fields(tt.keys) {
			keys[key] = key
		}
		if got, _ := choose(keys, tt.image); got != tt.want {
			t.Errorf("%s of %s: got %q, want %q", tt.image, tt.keys, got, tt.want)
		}
	}
}
