package packages

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// toolchainLine is the line of a go.mod that pins the toolchain.
var toolchainLine = regexp.MustCompile(`(?m)^toolchain (go1\.[0-9]+\.[0-9]+)$`)

// Every module pins the toolchain, and all pin the same one: otherwise the bytes of a build depend on
// which Go is installed.
func TestEveryModulePinsTheSameToolchain(t *testing.T) {
	pinned := strings.TrimSpace(run(t, root, nil, "packaging/toolchain.sh"))
	modules := strings.Fields(run(t, root, nil, "git", "ls-files", "go.mod", "*/go.mod"))
	if len(modules) < 5 {
		t.Fatalf("git lists only the modules %q", modules)
	}
	for _, name := range modules {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if m := toolchainLine.FindSubmatch(data); m == nil || string(m[1]) != pinned {
			t.Errorf("%s does not pin the toolchain %s", name, pinned)
		}
	}
}

// debianGo is the version of Go in Debian trixie, which is older than what go.mod needs and has
// GOTOOLCHAIN=local in its go.env.
const debianGo = "1.24"

// builtByDebiansGo builds the packages with the Go of Debian trixie, and compares them with those
// that the Go of this machine built.
func builtByDebiansGo(t *testing.T, dist string) {
	folder := t.TempDir()
	run(t, ".", nil, "../debian-packages.sh", "trixie", folder, "golang-"+debianGo+"-go", "golang-"+debianGo+"-src")
	goroot := filepath.Join(folder, "usr/lib/go-"+debianGo)
	// The package has links to /usr/share, where its sources are.
	for _, name := range []string{"src", "api", "misc", "test"} {
		link := filepath.Join(goroot, name)
		if target, err := os.Readlink(link); err == nil {
			if err := os.Remove(link); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(folder, "usr/share/go-"+debianGo, filepath.Base(target)), link); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := "PATH=" + filepath.Join(goroot, "bin") + ":/usr/sbin:/usr/bin:/sbin:/bin"
	env := append([]string{path, "GOTOOLCHAIN="}, stamps...)
	local := append([]string{"GOTOOLCHAIN=local", "GOROOT=" + goroot}, path)
	if out := run(t, ".", local, "sh", "-c", "go version"); !strings.Contains(out, "go"+debianGo+".") {
		t.Fatalf("the Go that builds is %s", out)
	}
	again := t.TempDir()
	run(t, root, env, "sh", "-c", `exec packaging/build.sh "$0"`, again)
	first, second := sums(t, dist), sums(t, again)
	for name, sum := range first {
		if second[name] != sum {
			t.Errorf("%s: %s by the Go of this machine, %s by Debian's", name, sum, second[name])
		}
	}
}
