package handover

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/internal/secret"
)

const password = "c4n4ry-s3cr3t"

// files are what the files of example contain.
var files = map[string]secret.Secret{
	"/etc/docker/certs.d/x/ca.crt": secret.New("authority"), "/etc/x/a.cert": secret.New("certificate"), "/root/a.key": secret.New(password), "/b.pem": secret.New("both"),
}

func example() Handover {
	return Handover{
		Registries: map[string]Registry{
			"registry.corp.example:5000": {
				CA: []string{"/etc/docker/certs.d/x/ca.crt"}, Client: []KeyPair{{"/etc/x/a.cert", "/root/a.key"}, {"/b.pem", "/b.pem"}},
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

// shown returns h with its secrets revealed and the contents of its files for their names.
func shown(t *testing.T, h Handover) string {
	t.Helper()
	var b strings.Builder
	for _, host := range slices.Sorted(maps.Keys(h.Registries)) {
		r := h.Registries[host].renamed(func(file string) string {
			if data, ok := files[file]; ok {
				return data.Reveal()
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		})
		fmt.Fprintf(&b, "%s %+v\n", host, r)
	}
	if p := h.Proxy; p != nil {
		fmt.Fprintf(&b, "%q %q %q %q\n", p.HTTP.Reveal(), p.HTTPS.Reveal(), p.NoProxy, p.From)
	}
	return b.String()
}

func TestReadReturnsWhatWriteWasGiven(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made")
	for _, want := range []Handover{example(), {}, example()} {
		if err := Write(dir, want, files); err != nil {
			t.Fatal(err)
		}
		got, err := Read(dir)
		if err != nil || shown(t, got) != shown(t, want) {
			t.Errorf("got\n%s%v\nwant\n%s", shown(t, got), err, shown(t, want))
		}
	}
	for _, file := range append(copies(t, dir), name) {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil || info.Mode() != 0o640 {
			t.Errorf("mode of %s: %v, %v", file, info.Mode(), err)
		}
	}
}

// copies lists the copies in a folder.
func copies(t *testing.T, dir string) (list []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range all {
		if item.Name() != name {
			list = append(list, item.Name())
		}
	}
	return list
}

func TestACopyThatIsNotUsedAnyMoreIsRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := example()
	if err := Write(dir, h, files); err != nil || len(copies(t, dir)) != 4 {
		t.Fatalf("%v, %v", copies(t, dir), err)
	}
	rotated := maps.Clone(files)
	rotated["/etc/x/a.cert"], rotated["/root/a.key"] = secret.New("new certificate"), secret.New("new key")
	before := copies(t, dir)
	if err := Write(dir, h, rotated); err != nil || len(copies(t, dir)) != 4 || slices.Equal(before, copies(t, dir)) {
		t.Errorf("after a rotation: %v, %v", copies(t, dir), err)
	}
	if err := Write(dir, Handover{Proxy: h.Proxy}, rotated); err != nil || len(copies(t, dir)) != 0 {
		t.Errorf("without registries: %v, %v", copies(t, dir), err)
	}
}

func TestAFileWithoutContentsIsNotHandedOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := Write(dir, example(), nil); err == nil {
		t.Error("no error")
	}
	if list := copies(t, dir); len(list) != 0 {
		t.Error(list)
	}
}

func TestAnUnchangedFileIsNotWrittenAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := filepath.Join(dir, name)
	var before os.FileInfo
	for i := range 2 {
		if err := Write(dir, example(), files); err != nil {
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
	if err := Write(dir, example(), files); err != nil {
		t.Fatal(err)
	}
	if now, err := os.Stat(at); err != nil || now.Mode() != 0o640 {
		t.Errorf("a file that the proxy cannot read stayed: %v, %v", now.Mode(), err)
	}
}

func TestAMissingFileHandsOverNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if h, err := Read(dir); err != nil || !reflect.DeepEqual(h, Handover{}) {
		t.Errorf("%+v, %v", h, err)
	}
	if err := Write(dir, example(), files); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	if h, err := Read(dir); err != nil || h.Registries != nil || h.Proxy != nil {
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
		if err := Write(dir, example(), files); err != nil {
			t.Fatal(err)
		}
		spoil(t, dir, at)
		if h, err := Read(dir); err == nil || !strings.Contains(err.Error(), what) && !strings.Contains(err.Error(), "symbolic") || h.Registries != nil {
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
	if err := Write(dir, example(), files); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, name)
	if err := os.Chown(at, 1234, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "belongs to user 1234") {
		t.Error(err)
	}
}

func TestWhatNoWatchingServiceWritesIsRefused(t *testing.T) {
	t.Parallel()
	copied := nameOf(secret.New("x"))
	if _, err := decode("/run/x", []byte(`{"version":1,"registries":{"a":{"ca":["`+copied+`"]}}}`)); err != nil {
		t.Fatal(err)
	}
	many := `{"version":1,"registries":{`
	for i := range maxRegistries + 1 {
		many += fmt.Sprintf(`"r%d.example":{},`, i)
	}
	for _, text := range []string{
		"", "null", "{", `{"version":2}`, `{"version":1,"registries":[]}`,
		`{"version":1,"registries":{"a b":{}}}`, `{"version":1,"registries":{"":{}}}`, `{"version":1,"registries":{"../x":{}}}`,
		`{"version":1,"registries":{"a":{"ca":["ca.crt"]}}}`, `{"version":1,"registries":{"a":{"ca":["/etc/shadow"]}}}`,
		`{"version":1,"registries":{"a":{"ca":["../` + copied + `"]}}}`, `{"version":1,"registries":{"a":{"client":[{"cert":"` + copied + `"}]}}}`,
		`{"version":1,"registries":{"a":{"from":"` + strings.Repeat("x", maxText+1) + `"}}}`,
		`{"version":1,"registries":{"a":{"ca":["` + copied + `"` + strings.Repeat(`,"`+copied+`"`, maxFiles) + `]}}}`,
		`{"version":1,"proxy":{"http":"` + strings.Repeat("x", maxText+1) + `"}}`,
		strings.TrimSuffix(many, ",") + "}}",
	} {
		if h, err := decode("/run/x", []byte(text)); err == nil {
			t.Errorf("%.80s: %+v", text, h)
		}
	}
}

func TestNoOutputHasTheProxysPassword(t *testing.T) {
	t.Parallel()
	h := example()
	_, badJSON := decode("/run/x", []byte(`{"proxy": "http://me:`+password+`@x"`))
	_, badType := decode("/run/x", []byte(`{"version":1,"proxy": "http://me:`+password+`@x"}`))
	text := fmt.Sprintf("%v %+v %#v %v %v %v", h, h, *h.Proxy, h.Proxy.HTTP, badJSON, badType)
	if strings.Contains(text, password) {
		t.Error(text)
	}
}

// What is believed can be written again and means the same then.
func FuzzDecode(f *testing.F) {
	names := map[string]string{}
	for file, data := range files {
		names[file] = nameOf(data)
	}
	data, err := encode(example(), names)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1}`))
	f.Add([]byte(`{"version":1,"registries":{"a":{"plain_http":true}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := decode("/run/x", data)
		if err != nil {
			return
		}
		back := map[string]string{}
		for _, r := range h.Registries {
			for _, file := range r.files() {
				if back[file] = filepath.Base(file); filepath.Dir(file) != "/run/x" {
					t.Fatalf("believes the path %q", file)
				}
			}
		}
		first, err := encode(h, back)
		if err != nil {
			if strings.Contains(err.Error(), "longer") {
				return
			}
			t.Fatalf("%q cannot be written again: %v", data, err)
		}
		again, err := decode("/run/x", first)
		if err != nil {
			t.Fatalf("%q cannot be read again: %v", first, err)
		}
		if second, err := encode(again, back); err != nil || string(second) != string(first) {
			t.Fatalf("%q became %q, %v", first, second, err)
		}
	})
}
