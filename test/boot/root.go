// Package boot boots whole Debian systems, with systemd as PID 1, the real engines
// and a network of their own, to test what only an installed package shows: its
// scripts, its units, a reboot, an upgrade, a removal.
package boot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// makeLimit bounds the making of a root: its packages come over the network.
const makeLimit = 10 * time.Minute

// A suite is a release of Debian.
type suite string

// The suites that can be booted, by their packages.
const (
	bookworm suite = "bookworm" // systemd 252, containerd 1.6, Docker 20.10
	trixie   suite = "trixie"   // systemd 257, containerd 1.7, Docker 26.1
	sid      suite = "sid"      // the newest, whatever that is

	// people is trixie with the programs that the documentation's readers have: sudo, and other
	// clients of registries.
	people suite = "trixie+people"
)

// peoplesPackages are those that people has in addition.
var peoplesPackages = []string{"sudo", "curl", "git", "gnupg", "jq", "make", "podman", "python3", "uidmap", "docker-buildx"}

// release is the name that Debian has for the suite.
func (s suite) release() string {
	name, _, _ := strings.Cut(string(s), "+")
	return name
}

// engines are the packages that make a container host.
func (s suite) engines() []string {
	if s == bookworm {
		return []string{"containerd", "runc", "docker.io"}
	}
	return []string{"containerd", "runc", "docker.io", "docker-cli"}
}

// recipe is the command line that makes a root, without its last word, the folder.
func (s suite) recipe() []string {
	packages := append([]string{"systemd", "systemd-sysv", "dbus", "iproute2", "ca-certificates", "kmod", "procps", "e2fsprogs", "rpm"}, s.engines()...)
	if s == people {
		packages = append(packages, peoplesPackages...)
	}
	return []string{
		"mmdebstrap", "--mode=root", "--variant=minbase", "--include=" + strings.Join(packages, ","),
		`--aptopt=Acquire::Languages "none"`,
		// A mirror that stands still for a while is good enough; what it has is signed.
		`--aptopt=Acquire::Check-Valid-Until "false"`,
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		// The engines again, to be installed where a test has removed them.
		`--customize-hook=chroot "$1" sh -c 'mkdir /srv/engines && cd /srv/engines && apt-get download -qq -o APT::Sandbox::User=root "$@"' sh ` +
			strings.Join(s.engines(), " "),
		// Without an identity systemd would take the first boot for a fresh installation,
		// and enable all that there is.
		`--customize-hook=chroot "$1" systemd-machine-id-setup`,
		// All files of sidemirror's package must be unpacked.
		`--customize-hook=rm -f "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$1/etc/resolv.conf"`,
		s.release(),
	}
}

// root returns the folder that holds a pristine root of the suite, and makes it
// where it is missing: in less than a minute, once for all runs on this machine.
// No test may write to it.
func (s suite) root(t testing.TB) string {
	t.Helper()
	recipe := s.recipe()
	sum := sha256.Sum256([]byte(strings.Join(recipe, "\x00")))
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(cache, "sidemirror-test", "roots")
	dir := filepath.Join(roots, string(s)+"-"+hex.EncodeToString(sum[:6]))
	if err := makeOnce(t, dir, recipe); err != nil {
		t.Fatalf("making a %s to boot: %v", s, err)
	}
	return dir
}

// makeOnce makes dir, unless it is there. Only one process does so at a time.
func makeOnce(t testing.TB, dir string, recipe []string) error {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	lock, err := os.Create(dir + ".lock")
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	began := time.Now()
	half := dir + ".new"
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), makeLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, recipe[0], append(recipe[1:], half)...)
	// Its own PATH: chroot hands it on, and not every caller's has the system's folders.
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("%s: %w\n%s", strings.Join(recipe, " "), err, out), os.RemoveAll(half))
	}
	t.Logf("made %s in %.0f s", dir, time.Since(began).Seconds())
	return os.Rename(half, dir)
}
