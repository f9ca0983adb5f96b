package packages

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/process"
	releases "github.com/sidemirror/sidemirror/test/release"
)

// release is a folder that packaging/release.sh made, and the server that publishes it.
type release struct {
	folder string
	server *httptest.Server
}

// newRelease makes two releases, one after the other, into one published folder.
func newRelease(t *testing.T, versions ...string) release {
	t.Helper()
	folder := t.TempDir()
	server := httptest.NewServer(http.FileServer(http.Dir(folder)))
	t.Cleanup(server.Close)
	key := releases.Key(t)
	for _, v := range versions {
		releases.Build(t, folder, server.URL, key, v, "COMMIT="+commit, "SOURCE_DATE_EPOCH="+moment)
	}
	return release{folder: folder, server: server}
}

// TestRelease makes two releases with a throw-away key, and has apt and dnf install from them.
func TestRelease(t *testing.T) {
	for _, name := range []string{"gpg", "reprepro", "createrepo_c", "rpmsign", "dnf", "apt-get"} {
		process.Path(t, name)
	}
	r := newRelease(t, "0.0.1", "0.0.2")
	t.Run("checksums", r.checksums)
	t.Run("materials", r.materials)
	t.Run("apt", r.apt)
	t.Run("dnf", r.dnf)
}

func (r release) checksums(t *testing.T) {
	home := t.TempDir()
	env := []string{"GNUPGHOME=" + home}
	// The commands of docs/install.md.
	run(t, r.folder, env, "gpg", "--show-keys", "sidemirror.asc")
	run(t, r.folder, env, "gpg", "--import", "sidemirror.asc")
	run(t, r.folder, env, "gpg", "--verify", "SHA256SUMS.asc", "SHA256SUMS")
	run(t, r.folder, nil, "sha256sum", "--check", "--ignore-missing", "SHA256SUMS")
	run(t, r.folder, nil, "sha256sum", "--check", "--strict", "SHA256SUMS")
	listed := run(t, r.folder, nil, "cut", "-c67-", "SHA256SUMS")
	for _, want := range []string{"sidemirror_0.0.2_amd64.deb", "sidemirror_0.0.2_arm64.deb", "sidemirror-0.0.2-1.x86_64.rpm", "sidemirror-0.0.2-1.aarch64.rpm",
		"sidemirror_0.0.2_amd64.cdx.json", "sidemirror_0.0.2_arm64.cdx.json", "sidemirror-archive-keyring_all.deb"} {
		if !strings.Contains(listed, want+"\n") {
			t.Errorf("SHA256SUMS does not list %s:\n%s", want, listed)
		}
	}
}

func (r release) materials(t *testing.T) {
	unpacked := t.TempDir()
	run(t, ".", nil, "dpkg-deb", "--extract", filepath.Join(r.folder, "sidemirror_0.0.2_amd64.deb"), unpacked)
	data, err := os.ReadFile(filepath.Join(r.folder, "sidemirror_0.0.2_amd64.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	modules := 0
	for line := range strings.Lines(run(t, ".", nil, "go", "version", "-m", filepath.Join(unpacked, "usr/bin/sidemirror"))) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0] != "dep" {
			continue
		}
		modules++
		if want := "pkg:golang/" + fields[1] + "@" + fields[2]; !strings.Contains(string(data), want) {
			t.Errorf("the bill of materials does not list %s", want)
		}
	}
	if modules < 10 {
		t.Fatalf("the binary names only %d modules", modules)
	}
}

// aptOptions give apt-get a state of its own in dir, with the source that the keyring package installs.
func (r release) aptOptions(t *testing.T, dir string) []string {
	t.Helper()
	run(t, ".", nil, "dpkg-deb", "--extract", filepath.Join(r.folder, "sidemirror-archive-keyring_all.deb"), dir)
	sources := filepath.Join(dir, "etc/apt/sources.list.d/sidemirror.sources")
	text := readFile(t, sources)
	text = strings.ReplaceAll(text, "/usr/share/keyrings", filepath.Join(dir, "usr/share/keyrings"))
	if err := os.WriteFile(sources, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"lists/partial", "archives/partial", "none"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var options []string
	for _, o := range []string{
		"Dir::Etc::sourcelist=" + sources, "Dir::Etc::sourceparts=" + dir + "/none", "Dir::State::lists=" + dir + "/lists",
		"Dir::State::status=/dev/null", "Dir::Cache::archives=" + dir + "/archives", "Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=",
		"APT::Sandbox::User=root", "APT::Update::Error-Mode=any", "Acquire::http::Proxy=DIRECT",
	} {
		options = append(options, "-o", o)
	}
	return options
}

func (r release) apt(t *testing.T) {
	dir := t.TempDir()
	options := r.aptOptions(t, dir)
	apt := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "apt-get", append(options, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := apt("update"); err != nil {
		t.Fatalf("apt-get update: %v\n%s", err, out)
	}
	if out, err := apt("download", "sidemirror"); err != nil {
		t.Fatalf("apt-get download: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "sidemirror_0.0.2_amd64.deb")); err != nil {
		t.Errorf("apt did not get the newest version: %v", err)
	}
	release := filepath.Join(r.folder, "apt/dists/stable/InRelease")
	restore := change(t, release, "Label: sidemirror", "Label: sidemirroR")
	if out, err := apt("update"); err == nil {
		t.Errorf("apt accepts a changed InRelease:\n%s", out)
	}
	restore()
}

func (r release) dnf(t *testing.T) {
	installroot, repos := t.TempDir(), t.TempDir()
	run(t, ".", nil, "cp", filepath.Join(r.folder, "sidemirror.repo"), repos)
	dnf := func(args ...string) (string, error) {
		options := []string{"-y", "--installroot=" + installroot, "--setopt=reposdir=" + repos, "--releasever=1", "--noplugins",
			"--setopt=tsflags=noscripts", "--setopt=metadata_expire=0", "--setopt=keepcache=0"}
		cmd := exec.CommandContext(t.Context(), "dnf", append(options, args...)...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	shell := rpmWithShell(t)
	if out, err := dnf("install", "--nogpgcheck", shell); err != nil {
		t.Fatalf("installing the shell that the package needs: %v\n%s", err, out)
	}
	if out, err := dnf("install", "sidemirror-0.0.1"); err != nil {
		t.Fatalf("dnf install: %v\n%s", err, out)
	}
	version := func() string {
		return strings.TrimSpace(run(t, ".", nil, "rpm", "--root", installroot, "--query", "--queryformat", "%{VERSION}", "sidemirror"))
	}
	if got := version(); got != "0.0.1" {
		t.Fatalf("dnf installed version %s", got)
	}
	newest := filepath.Join(r.folder, "rpm/sidemirror-0.0.2-1.x86_64.rpm")
	data := []byte(readFile(t, newest))
	changed := append([]byte{}, data...)
	changed[len(changed)-100] ^= 1
	if err := os.WriteFile(newest, changed, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := dnf("upgrade", "sidemirror"); err == nil || version() != "0.0.1" {
		t.Errorf("dnf accepts a changed package; version %s:\n%s", version(), out)
	}
	if err := os.WriteFile(newest, data, 0o644); err != nil {
		t.Fatal(err)
	}
	restore := change(t, filepath.Join(r.folder, "rpm/repodata/repomd.xml"), "<revision>", "<revision>1")
	// dnf ignores a repository whose metadata it refuses, and then has nothing to do.
	if out, _ := dnf("upgrade", "sidemirror"); !strings.Contains(out, "GPG signature") || version() != "0.0.1" {
		t.Errorf("dnf accepts changed metadata; version %s:\n%s", version(), out)
	}
	restore()
	if out, err := dnf("upgrade", "sidemirror"); err != nil || version() != "0.0.2" {
		t.Errorf("dnf upgrade: %v, version %s\n%s", err, version(), out)
	}
}

// rpmWithShell builds an rpm that provides /bin/sh, which a real host has and an empty folder has not.
func rpmWithShell(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	config := "name: shell\narch: noarch\nplatform: linux\nversion: 1.0\nmaintainer: test\ndescription: test\nlicense: none\nprovides: [/bin/sh]\n"
	if err := os.WriteFile(filepath.Join(dir, "nfpm.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	nfpm := filepath.Join(dir, "nfpm")
	run(t, filepath.Join(root, "packaging"), []string{"CGO_ENABLED=0", "GOFLAGS="}, "go", "build", "-o", nfpm, "github.com/goreleaser/nfpm/v2/cmd/nfpm")
	run(t, dir, nil, nfpm, "package", "--packager", "rpm", "--target", "shell.rpm")
	return filepath.Join(dir, "shell.rpm")
}

// change replaces text in a file and returns a function that restores the file.
func change(t *testing.T, name, before, after string) (restore func()) {
	t.Helper()
	text := readFile(t, name)
	if !strings.Contains(text, before) {
		t.Fatalf("%s does not contain %q", name, before)
	}
	// Each write is an hour after the one before: HTTP's Last-Modified knows no more than seconds, and
	// the server would say that the file has not changed.
	at := time.Now()
	write := func(text string) {
		at = at.Add(time.Hour)
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(text, before, after, 1))
	return func() { write(text) }
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestReleaseSaysWhatIsMissing(t *testing.T) {
	for _, c := range []struct {
		name string
		env  []string
		want string
	}{
		{"no key", []string{"SIGNING_KEY=", "REPOSITORY_URL=https://packages.example"}, "SIGNING_KEY is not set; name a file"},
		{"no such file", []string{"SIGNING_KEY=/nonexistent/key.asc", "REPOSITORY_URL=https://packages.example"}, "/nonexistent/key.asc cannot be read"},
		{"a folder", []string{"SIGNING_KEY=/etc", "REPOSITORY_URL=https://packages.example"}, "/etc cannot be read"},
		{"no URL", []string{"SIGNING_KEY=/etc/hostname", "REPOSITORY_URL="}, "REPOSITORY_URL is not an http or https URL"},
		{"no scheme", []string{"SIGNING_KEY=/etc/hostname", "REPOSITORY_URL=packages.example"}, "REPOSITORY_URL is not an http or https URL"},
		{"no key in it", []string{"SIGNING_KEY=/etc/hostname", "REPOSITORY_URL=https://packages.example"}, "gpg failed"},
	} {
		cmd := exec.CommandContext(t.Context(), "packaging/release.sh", t.TempDir())
		cmd.Dir = root
		cmd.Env = append(os.Environ(), append(c.env, stamps...)...)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: %v, %s; want %q", c.name, err, out, c.want)
		}
	}
}
