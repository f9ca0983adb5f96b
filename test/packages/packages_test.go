package packages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
)

func TestMain(m *testing.M) { harness.Main(m) }

// root is the checkout; go test runs a package's tests in its own folder.
const root = "../.."

// version and moment are what the packages of these tests are stamped with.
const (
	version = "0.0.1~test1"
	commit  = "0123456789abcdef0123456789abcdef01234567"
	moment  = "1000000000" // 2001-09-09, which no clock here says
)

// stamps gives them to what builds.
var stamps = []string{"VERSION=" + version, "COMMIT=" + commit, "SOURCE_DATE_EPOCH=" + moment, "GOFLAGS="}

// run runs a program in a folder, and is its output.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, &out, &errs)
	}
	return out.String()
}

// build builds the four packages of a checkout.
func build(t *testing.T, checkout string) string {
	t.Helper()
	dist := t.TempDir()
	run(t, checkout, stamps, "packaging/build.sh", dist)
	return dist
}

// format is a package as its own tools show it.
type format struct {
	file, arch string
	unpacked   string
}

// TestPackages builds the packages once and looks at them from all sides.
func TestPackages(t *testing.T) {
	for _, name := range []string{"dpkg-deb", "rpm", "rpm2cpio", "cpio"} {
		process.Path(t, name)
	}
	dist := build(t, root)
	debs := []format{{file: "sidemirror_" + version + "_amd64.deb", arch: "amd64"}, {file: "sidemirror_" + version + "_arm64.deb", arch: "arm64"}}
	rpms := []format{{file: "sidemirror-" + version + "-1.x86_64.rpm", arch: "amd64"}, {file: "sidemirror-" + version + "-1.aarch64.rpm", arch: "arm64"}}
	list, err := os.ReadDir(dist)
	if err != nil || len(list) != 4 {
		t.Fatalf("%v, %v; want four packages", list, err)
	}
	for i := range debs {
		debs[i].file, debs[i].unpacked = filepath.Join(dist, debs[i].file), t.TempDir()
		run(t, ".", nil, "dpkg-deb", "--extract", debs[i].file, debs[i].unpacked)
		rpms[i].file, rpms[i].unpacked = filepath.Join(dist, rpms[i].file), t.TempDir()
		// The option is for a package with absolute names, which would go to this host's own folders.
		run(t, rpms[i].unpacked, []string{"FILE=" + rpms[i].file}, "sh", "-c", `rpm2cpio "$FILE" | cpio --extract --make-directories --quiet --no-absolute-filenames`)
	}
	t.Run("the same bytes from elsewhere", func(t *testing.T) { sameBytes(t, dist) })
	t.Run("the same bytes by Debian's Go", func(t *testing.T) { builtByDebiansGo(t, dist) })
	t.Run("what is in them", func(t *testing.T) { contents(t, debs, rpms) })
	t.Run("binary", func(t *testing.T) { binaries(t, debs, rpms) })
	t.Run("licences", func(t *testing.T) { licences(t, debs[0], rpms[0]) })
	t.Run("changelog", func(t *testing.T) { changelogs(t, debs[0], rpms[0]) })
	t.Run("manual pages", func(t *testing.T) { manual(t, debs[0]) })
	t.Run("scripts", func(t *testing.T) { scripts(t, debs[0], rpms[0]) })
	t.Run("lintian", func(t *testing.T) { lintian(t, debs) })
	t.Run("rpmlint", func(t *testing.T) { rpmlint(t, rpms) })
}

// sameBytes builds again: in another folder, without git, as if in another zone and
// language, and with a mask that takes everything from others.
func sameBytes(t *testing.T, dist string) {
	elsewhere := filepath.Join(t.TempDir(), "another place")
	copyCheckout(t, elsewhere)
	again := t.TempDir()
	env := append([]string{"TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "HOSTNAME=elsewhere"}, stamps...)
	run(t, elsewhere, env, "sh", "-c", `umask 077 && exec packaging/build.sh "$0"`, again)
	first, second := sums(t, dist), sums(t, again)
	for name, sum := range first {
		if second[name] != sum {
			t.Errorf("%s: %s here, %s there", name, sum, second[name])
		}
	}
	if len(second) != len(first) || len(first) != 4 {
		t.Errorf("%d packages here, %d there", len(first), len(second))
	}
}

// copyCheckout copies what git knows of, and what is new and not ignored.
func copyCheckout(t *testing.T, to string) {
	t.Helper()
	names := run(t, root, nil, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	for name := range strings.SplitSeq(strings.TrimSuffix(names, "\x00"), "\x00") {
		from := filepath.Join(root, name)
		info, err := os.Lstat(from)
		if os.IsNotExist(err) {
			continue // removed, and not committed yet
		} else if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if info.Mode()&os.ModeSymlink != 0 {
			target, err := os.Readlink(from)
			if err := errors.Join(err, os.Symlink(target, filepath.Join(to, name))); err != nil {
				t.Fatal(err)
			}
			continue
		}
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, name), data, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
}

func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range list {
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(data)
		all[entry.Name()] = hex.EncodeToString(sum[:])
	}
	return all
}

// read reads a file of an unpacked package.
func (f format) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.unpacked, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// files are the names of all that is not a folder under dir.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, strings.TrimPrefix(name, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}
