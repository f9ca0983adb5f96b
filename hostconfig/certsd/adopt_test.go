package certsd

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/certtest"
)

// text says what is adopted, without the folder of the registries.
func text(list []engine.Adopted) string {
	var parts []string
	for _, a := range list {
		s := a.Registry
		for _, ca := range a.CA {
			s += " ca=" + ca
		}
		for _, pair := range a.Clients {
			s += " client=" + pair.Cert + "," + pair.Key
		}
		if a.SkipVerify {
			s += " skip"
		}
		if a.PlainHTTP {
			s += " plain"
		}
		parts = append(parts, s)
	}
	return strings.ReplaceAll(strings.Join(parts, "; "), root+"/", "")
}

func TestWhatIsAdoptedFromARegistrysFolder(t *testing.T) {
	cert, key := certtest.New(t)
	_, otherKey := certtest.New(t)
	const (
		itself = "[host.\"https://r.example\"]\n"
		other  = "[host.\"https://m.example\"]\n"
	)
	for name, test := range map[string]struct {
		files map[string]string
		named bool
		want  string // what is adopted
		left  string // the code of the note, if the registry is left to the engine
	}{
		"nothing":             {files: nil},
		"an empty folder":     {files: map[string]string{"": ""}},
		"a CA":                {files: map[string]string{"ca.crt": cert}, want: "r.example ca=r.example/ca.crt"},
		"two CAs":             {files: map[string]string{"a.crt": cert, "b.crt": cert}, want: "r.example ca=r.example/a.crt ca=r.example/b.crt"},
		"a certificate":       {files: map[string]string{"me.cert": cert, "me.key": key}, want: "r.example client=r.example/me.cert,r.example/me.key"},
		"both in one file":    {files: map[string]string{"me.cert": cert + key}, want: "r.example client=r.example/me.cert,r.example/me.cert"},
		"a CA that is no PEM": {files: map[string]string{"ca.crt": "x"}, left: "registry-with-own-tls"},
		"another's key":       {files: map[string]string{"me.cert": cert, "me.key": otherKey}, left: "registry-with-own-tls"},
		"no key":              {files: map[string]string{"me.cert": cert}, left: "registry-with-own-tls"},
		"an empty hosts.toml": {files: map[string]string{"hosts.toml": "", "ca.crt": cert}, want: "r.example ca=r.example/ca.crt"},
		"a mirror":            {files: map[string]string{"hosts.toml": other}},
		"certificates that a hosts.toml switches off":     {files: map[string]string{"hosts.toml": other, "ca.crt": cert}},
		"ca of the registry":                              {files: map[string]string{"hosts.toml": "ca = \"own.pem\"\n" + other, "own.pem": cert}, want: "r.example ca=r.example/own.pem"},
		"an absolute path":                                {files: map[string]string{"hosts.toml": "ca = [\"" + root + "/r.example/own.pem\"]\n" + other, "own.pem": cert}, want: "r.example ca=r.example/own.pem"},
		"ca of the registry as a host":                    {files: map[string]string{"hosts.toml": itself + "ca = \"own.pem\"\n", "own.pem": cert}, want: "r.example ca=r.example/own.pem"},
		"with the port":                                   {files: map[string]string{"hosts.toml": "[host.\"https://R.example:443\"]\nskip_verify = true\n"}, want: "r.example skip"},
		"both":                                            {files: map[string]string{"hosts.toml": "ca = \"own.pem\"\n" + itself + "ca = \"own.pem\"\nskip_verify = true\n", "own.pem": cert}, want: "r.example ca=r.example/own.pem skip"},
		"client":                                          {files: map[string]string{"hosts.toml": itself + "client = [[\"c.pem\", \"k.pem\"]]\n", "c.pem": cert, "k.pem": key}, want: "r.example client=r.example/c.pem,r.example/k.pem"},
		"client as a string":                              {files: map[string]string{"hosts.toml": itself + "client = \"c.pem\"\n", "c.pem": cert + key}, want: "r.example client=r.example/c.pem,r.example/c.pem"},
		"plain HTTP as the server":                        {files: map[string]string{"hosts.toml": "server = \"http://r.example\"\n" + other}, want: "r.example plain"},
		"plain HTTP as a host":                            {files: map[string]string{"hosts.toml": "[host.\"http://r.example\"]\n"}, want: "r.example plain"},
		"plain HTTP first, then HTTPS":                    {files: map[string]string{"hosts.toml": "[host.\"http://r.example\"]\n" + itself}, left: "registry-with-own-tls"},
		"plain HTTP or HTTPS":                             {files: map[string]string{"hosts.toml": "[host.\"http://r.example\"]\nskip_verify = true\n"}, left: "registry-with-own-tls"},
		"another server with plain HTTP":                  {files: map[string]string{"hosts.toml": "server = \"http://m.example\"\n" + other}, left: "registry-with-own-tls"},
		"a mirror with a CA":                              {files: map[string]string{"hosts.toml": other + "ca = \"own.pem\"\n", "own.pem": cert}, left: "registry-with-own-tls"},
		"a mirror with a CA, of a registry that is named": {files: map[string]string{"hosts.toml": other + "ca = \"own.pem\"\n", "own.pem": cert}, named: true},
		"a mirror with a CA, and a CA of its own": {
			files: map[string]string{"hosts.toml": "ca = \"own.pem\"\n" + other + "ca = \"own.pem\"\n", "own.pem": cert}, named: true, want: "r.example ca=r.example/own.pem",
		},
		"sidemirror's own host does not count": {files: map[string]string{"hosts.toml": "[host.\"" + mirror + "\"]\n" + itself + "skip_verify = true\n"}, want: "r.example skip"},
		"a certificate that is missing":        {files: map[string]string{"hosts.toml": itself + "ca = \"gone.pem\"\n"}}, // the file is refused
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{}
			for file, data := range test.files {
				files["r.example/"+file] = data
			}
			f := folder(t, files)
			var p engine.Plan
			left := !f.adopt(&p, "r.example", root+"/r.example", mirror, test.named)
			note := ""
			for _, n := range p.State.Notes {
				note = string(n.Code)
			}
			if text(p.State.Adopted) != test.want || left != (test.left != "") || note != test.left {
				t.Errorf("adopted %q, left to the engine: %t, note %q", text(p.State.Adopted), left, note)
			}
			for _, a := range p.State.Adopted {
				if names := fmt.Sprint(slices.Sorted(maps.Keys(a.Contents))); len(a.Contents) != len(slices.Compact(strings.Fields(strings.Trim(names, "[]")))) {
					t.Errorf("contents of %s", names)
				}
			}
			f.Explicit = []string{"r.example"}
			p = engine.Plan{}
			if !f.adopt(&p, "r.example", root+"/r.example", mirror, test.named) || len(p.State.Adopted) != 0 {
				t.Errorf("although the configuration says how it is reached: %q", text(p.State.Adopted))
			}
		})
	}
}

func TestAKeyThatOnlyRootCanReadIsCopiedOnlyIfThatIsAllowed(t *testing.T) {
	cert, key := certtest.New(t)
	for name, change := range map[string]func(t *testing.T, folder string){
		"the key":    func(t *testing.T, folder string) { mode(t, filepath.Join(folder, "me.key"), 0o600) },
		"its folder": func(t *testing.T, folder string) { mode(t, folder, 0o750) },
	} {
		f := folder(t, map[string]string{"r.example/me.cert": cert, "r.example/me.key": key})
		var p engine.Plan
		if !f.adopt(&p, "r.example", root+"/r.example", mirror, false) {
			t.Fatal("a key that every user can read is not adopted")
		}
		change(t, filepath.Join(f.Host.Tree.Dir(), root, "r.example"))
		p = engine.Plan{}
		if f.adopt(&p, "r.example", root+"/r.example", mirror, false) || p.State.Notes[0].Code != "client-key-private" || !slices.Contains(p.Skipped, "r.example") {
			t.Errorf("%s: %+v", name, p)
		}
		f.CopyKeys = true
		p = engine.Plan{}
		if !f.adopt(&p, "r.example", root+"/r.example", mirror, false) || p.State.Adopted[0].Contents[root+"/r.example/me.key"].Reveal() != key {
			t.Errorf("%s, with permission: %+v", name, p)
		}
		if shown := fmt.Sprintf("%+v %#v", p, p.State.Adopted); strings.Contains(shown, "PRIVATE KEY") {
			t.Error("the key is printed")
		}
	}
}

func mode(t *testing.T, name string, to os.FileMode) {
	t.Helper()
	if err := os.Chmod(name, to); err != nil {
		t.Fatal(err)
	}
}

func TestAFileThatOthersCanWriteIsNotAdopted(t *testing.T) {
	cert, _ := certtest.New(t)
	f := folder(t, map[string]string{"r.example/ca.crt": cert})
	mode(t, filepath.Join(f.Host.Tree.Dir(), root, "r.example/ca.crt"), 0o666)
	var p engine.Plan
	if f.adopt(&p, "r.example", root+"/r.example", mirror, false) || len(p.State.Notes) != 1 || p.State.Notes[0].Code != "path-not-safe" {
		t.Errorf("%+v", p)
	}
}
