package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// The versions that are built: one to install and one to upgrade to, and one to upgrade from.
const oldVersion, newVersion, formerVersion = "0.1.0", "0.1.1~boot1", "0.0.9"

// formerPort is the default port of the version that former builds.
const formerPort = "5115"

// packages are the paths of what was built from this checkout. In a machine each is in /srv under
// its own name, once carried there.
type packages struct {
	deb, newDeb string
	rpm, newRPM string
}

// building is what this test process builds once, in a folder of its own.
type building struct {
	once sync.Once
	dir  string
	made bool
	err  error
}

// The packages of this checkout, and those of one with another default port.
var build, formerBuild building

// start makes the folder and fills it, once.
func (b *building) start(t testing.TB, fill func(dir string) error) {
	t.Helper()
	b.once.Do(func() {
		began := time.Now()
		if b.dir, b.err = os.MkdirTemp("", "sidemirror-packages-"); b.err != nil {
			return
		}
		b.made = true
		b.err = fill(b.dir)
		t.Logf("built packages in %.0f s", time.Since(began).Seconds())
	})
	if b.err != nil {
		t.Fatalf("building packages: %v", b.err)
	}
}

// remove removes the folder.
func (b *building) remove() error {
	if !b.made {
		return nil
	}
	return os.RemoveAll(b.dir)
}

// built returns the packages in both versions: those in $SIDEMIRROR_TEST_PACKAGES or, if that is not
// set, new ones.
func built(t testing.TB) packages {
	t.Helper()
	dir := os.Getenv("SIDEMIRROR_TEST_PACKAGES")
	if dir == "" {
		build.start(t, func(dir string) error {
			// go test runs in the package's folder.
			return errors.Join(makePackages("../..", dir, oldVersion), makePackages("../..", dir, newVersion))
		})
		dir = build.dir
	}
	return packages{
		deb: debIn(dir, oldVersion), newDeb: debIn(dir, newVersion),
		rpm: rpmIn(dir, oldVersion), newRPM: rpmIn(dir, newVersion),
	}
}

// former returns a deb and an rpm of this checkout with another default port, of a lower version.
func former(t testing.TB) (deb, rpm string) {
	t.Helper()
	formerBuild.start(t, func(dir string) error {
		checkout := filepath.Join(dir, "checkout")
		if err := copyCheckout(checkout, func(name string, data []byte) []byte {
			if strings.HasPrefix(name, "test/") {
				return data
			}
			return bytes.ReplaceAll(data, []byte(":305"), []byte(":"+formerPort))
		}); err != nil {
			return err
		}
		return makePackages(checkout, dir, formerVersion)
	})
	return debIn(formerBuild.dir, formerVersion), rpmIn(formerBuild.dir, formerVersion)
}

func debIn(dir, version string) string {
	return filepath.Join(dir, fmt.Sprintf("sidemirror_%s_%s.deb", version, runtime.GOARCH))
}

func rpmIn(dir, version string) string {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	return filepath.Join(dir, fmt.Sprintf("sidemirror-%s-1.%s.rpm", version, arch))
}

func makePackages(checkout, dir, version string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(checkout, "packaging/build.sh"), dir)
	cmd.Env = append(os.Environ(), "VERSION="+version, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// copyCheckout copies the files that git knows, each as edit returns it.
func copyCheckout(to string, edit func(name string, data []byte) []byte) error {
	names, err := exec.Command("git", "-C", "../..", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("listing the checkout: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		from, to := filepath.Join("../..", name), filepath.Join(to, name)
		info, err := os.Lstat(from)
		if os.IsNotExist(err) {
			continue // deleted, and the deletion is not committed yet
		} else if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if info.Mode()&os.ModeSymlink != 0 {
			target, err := os.Readlink(from)
			if err := errors.Join(err, os.Symlink(target, to)); err != nil {
				return err
			}
			continue
		}
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(to, edit(name, data), info.Mode().Perm()); err != nil {
			return err
		}
	}
	return nil
}

// inside is where a carried file is in the machine.
func inside(file string) string { return "/srv/" + filepath.Base(file) }
