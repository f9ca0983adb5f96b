package handover

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/internal/secret"
)

const password = "c4n4ry-s3cr3t"

func example() Handover {
	return Handover{
		Registries: map[string]Registry{
			"registry.corp.example:5000": {
				CA: []string{"/etc/docker/certs.d/x/ca.crt"}, Client: []KeyPair{{"/etc/x/a.cert", "/run/x/a.key"}, {"/b.pem", "/b.pem"}},
				SkipVerify: true, From: "/etc/docker/certs.d/x",
			},
			"plain.example": {PlainHTTP: true, From: "/etc/containerd/certs.d/plain.example/hosts.toml"},
		},
		Proxy: &Proxy{
			HTTP: secret.New("http://me:" + password + "@proxy.example:3128"), NoProxy: "10.0.0.0/8,.corp.example",
			From: "/etc/systemd/system/docker.service.d/proxy.conf",
		},
	}
}

// shown returns h with its secrets revealed.
func shown(t *testing.T, h Handover) string {
	t.Helper()
	data, err := encode(h)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestReadReturnsWhatWriteWasGiven(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, want := range []Handover{example(), {}, example()} {
		if err := Write(dir, want); err != nil {
			t.Fatal(err)
		}
		got, err := Read(filepath.Join(dir, name))
		if err != nil || shown(t, got) != shown(t, want) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, name))
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestAnUnchangedFileIsNotWrittenAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := filepath.Join(dir, name)
	var before os.FileInfo
	for i := range 2 {
		if err := Write(dir, example()); err != nil {
			t.Fatal(err)
		}
		now, err := os.Stat(at)
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 && !os.SameFile(before, now) {
			t.Error("the same contents were written to a new file")
		}
		before = now
	}
	if err := os.Chmod(at, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, example()); err != nil {
		t.Fatal(err)
	}
	if now, err := os.Stat(at); err != nil || now.Mode() != 0o640 {
		t.Errorf("a file that the proxy cannot read stayed: %v, %v", now.Mode(), err)
	}
}

func TestAMissingFileHandsOverNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if h, err := Read(filepath.Join(dir, name)); err != nil || !reflect.DeepEqual(h, Handover{}) {
		t.Errorf("%+v, %v", h, err)
	}
	if err := Write(dir, example()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	if h, err := Read(filepath.Join(dir, name)); err != nil || h.Registries != nil || h.Proxy != nil {
		t.Errorf("%+v, %v", h, err)
	}
	if err := Remove(filepath.Join(dir, "missing")); err != nil {
		t.Error(err)
	}
}

func TestFilesThatAnotherUserCanWriteAreNotBelieved(t *testing.T) {
	t.Parallel()
	for what, spoil := range map[string]func(t *testing.T, dir, at string){
		"other users may write it": func(t *testing.T, _, at string) {
			if err := os.Chmod(at, 0o646); err != nil {
				t.Fatal(err)
			}
		},
		"may write": func(t *testing.T, _, at string) { // its group
			if err := os.Chmod(at, 0o660); err != nil {
				t.Fatal(err)
			}
		},
		"symbolic link": func(t *testing.T, dir, at string) {
			if err := os.Rename(at, filepath.Join(dir, "other")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("other", at); err != nil {
				t.Fatal(err)
			}
		},
		"is not a file": func(t *testing.T, _, at string) {
			if err := os.Remove(at); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(at, 0o755); err != nil {
				t.Fatal(err)
			}
		},
		"longer than": func(t *testing.T, _, at string) {
			if err := os.Truncate(at, maxSize+1); err != nil {
				t.Fatal(err)
			}
		},
	} {
		dir := t.TempDir()
		at := filepath.Join(dir, name)
		if err := Write(dir, example()); err != nil {
			t.Fatal(err)
		}
		spoil(t, dir, at)
		if h, err := Read(at); err == nil || !strings.Contains(err.Error(), what) && !strings.Contains(err.Error(), "symbolic") || h.Registries != nil {
			t.Errorf("%s: %+v, %v", what, h, err)
		}
	}
}

func TestAFileOfAnotherUserIsNotBelieved(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // only root can give a file away; the next test has the same rule without it
	}
	dir := t.TempDir()
	if err := Write(dir, example()); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, name)
	if err := os.Chown(at, 1234, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(at); err == nil || !strings.Contains(err.Error(), "belongs to user 1234") {
		t.Error(err)
	}
}

func TestWhatNoWatchingServiceWritesIsRefused(t *testing.T) {
	t.Parallel()
	many := `{"version":1,"registries":{`
	for i := range maxRegistries + 1 {
		many += fmt.Sprintf(`"r%d.example":{},`, i)
	}
	for _, text := range []string{
		"", "null", "{", `{"version":2}`, `{"version":1,"registries":[]}`,
		`{"version":1,"registries":{"a b":{}}}`, `{"version":1,"registries":{"":{}}}`, `{"version":1,"registries":{"../x":{}}}`,
		`{"version":1,"registries":{"a":{"ca":["ca.crt"]}}}`, `{"version":1,"registries":{"a":{"ca":["/x/../y"]}}}`,
		`{"version":1,"registries":{"a":{"client":[{"cert":"/x"}]}}}`,
		`{"version":1,"registries":{"a":{"ca":["/` + strings.Repeat("x", maxPath) + `"]}}}`,
		`{"version":1,"registries":{"a":{"ca":["/x"` + strings.Repeat(`,"/x"`, maxFiles) + `]}}}`,
		`{"version":1,"proxy":{"http":"` + strings.Repeat("x", maxText+1) + `"}}`,
		strings.TrimSuffix(many, ",") + "}}",
	} {
		if h, err := decode([]byte(text)); err == nil {
			t.Errorf("%.80s: %+v", text, h)
		}
	}
}

func TestNoOutputHasTheProxysPassword(t *testing.T) {
	t.Parallel()
	h := example()
	_, badJSON := decode([]byte(`{"proxy": "http://me:` + password + `@x"`))
	_, badType := decode([]byte(`{"version":1,"proxy": "http://me:` + password + `@x"}`))
	text := fmt.Sprintf("%v %+v %#v %v %v %v", h, h, *h.Proxy, h.Proxy.HTTP, badJSON, badType)
	if strings.Contains(text, password) {
		t.Error(text)
	}
}

func TestFilesAreListedOnce(t *testing.T) {
	t.Parallel()
	got := strings.Join(example().Files(), " ")
	if got != "/b.pem /etc/docker/certs.d/x/ca.crt /etc/x/a.cert /run/x/a.key" {
		t.Error(got)
	}
}

// What is believed can be written again and means the same then.
func FuzzDecode(f *testing.F) {
	data, err := encode(example())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":1,"registries":{"a":{"plain_http":true}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := decode(data)
		if err != nil {
			return
		}
		for _, file := range h.Files() {
			if !filepath.IsAbs(file) {
				t.Fatalf("believes the relative path %q", file)
			}
		}
		first, err := encode(h)
		if err != nil {
			if strings.Contains(err.Error(), "longer") {
				return
			}
			t.Fatalf("%q cannot be written again: %v", data, err)
		}
		again, err := decode(first)
		if err != nil {
			t.Fatalf("%q cannot be read again: %v", first, err)
		}
		if second, err := encode(again); err != nil || string(second) != string(first) {
			t.Fatalf("%q became %q, %v", first, second, err)
		}
	})
}
