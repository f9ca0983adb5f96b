package hosts_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/engine"
)

// tree is what the folders of a host's configuration hold: for each name a line with its
// type, mode, owner and target, and of a file the time of its change and the sum of its bytes.
type tree map[string]string

// stores are where engines have their images.
var stores = []string{
	"/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/buildkit", "/var/lib/nerdctl",
	"/var/lib/rancher/k3s/agent/containerd", "/var/lib/k0s/containerd",
}

// takeTree reads /etc, /srv and all of /var/lib except the engines' own folders.
func (r *rig) takeTree(t *testing.T) tree {
	t.Helper()
	taken := tree{}
	for _, top := range []string{"etc", "var/lib", "srv"} {
		err := filepath.WalkDir(filepath.Join(r.host.Root, top), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(path, r.host.Root)
			if slices.Contains(stores, name) {
				return fs.SkipDir
			}
			line, err := describe(path)
			taken[name] = line
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return taken
}

func describe(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	stat := info.Sys().(*syscall.Stat_t)
	line := fmt.Sprintf("%v %d:%d", info.Mode(), stat.Uid, stat.Gid)
	switch {
	case info.Mode().IsRegular():
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %s %x", line, info.ModTime().Format("15:04:05.000000000"), sha256.Sum256(data)), nil
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return line + " " + target, err
	}
	return line, nil
}

// unlike lists the differences of two trees.
func (t tree) unlike(other tree) []string {
	var found []string
	for name, line := range t {
		if now := other[name]; now != line {
			found = append(found, fmt.Sprintf("%s\n  was %s\n  is  %s", name, line, now))
		}
	}
	for name, line := range other {
		if t[name] == "" {
			found = append(found, fmt.Sprintf("%s\n  is new: %s", name, line))
		}
	}
	slices.Sort(found)
	return found
}

// sameTree fails the test if the host's folders are not what they were.
func (r *rig) sameTree(t *testing.T, when string, first tree) {
	t.Helper()
	if found := first.unlike(r.takeTree(t)); len(found) > 0 {
		t.Errorf("%s, the tree is not what it was:\n%s", when, strings.Join(found, "\n"))
	}
}

// The tests above rely on this comparison.
func TestTheComparisonOfTreesSeesEveryDifference(t *testing.T) {
	r := &rig{host: &engine.Host{Root: t.TempDir()}}
	at := func(name string) string { return filepath.Join(r.host.Root, "etc", name) }
	errs := []error{os.MkdirAll(at("folder"), 0o755), os.Mkdir(filepath.Join(r.host.Root, "srv"), 0o755), os.MkdirAll(filepath.Join(r.host.Root, "var/lib/docker/of-its-own"), 0o755), os.Symlink("a", at("link"))}
	for _, name := range []string{"bytes", "mode", "time", "gone", "same"} {
		errs = append(errs, os.WriteFile(at(name), []byte(name), 0o644))
	}
	first := r.takeTree(t)
	r.sameTree(t, "at once", first)
	info, err := os.Stat(at("bytes"))
	errs = append(errs, err, os.WriteFile(at("bytes"), []byte("BYTES"), 0o644), os.Chtimes(at("bytes"), info.ModTime(), info.ModTime()),
		os.Chmod(at("mode"), 0o600), os.Chmod(at("folder"), 0o700), os.Chtimes(at("time"), time.Now(), info.ModTime().Add(1)),
		os.Remove(at("gone")), os.Remove(at("link")), os.Symlink("b", at("link")),
		os.WriteFile(at("new"), nil, 0o644), os.WriteFile(filepath.Join(r.host.Root, "var/lib/docker/more"), nil, 0o644))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, text := range first.unlike(r.takeTree(t)) {
		name, _, _ := strings.Cut(text, "\n")
		names = append(names, strings.TrimPrefix(name, "/etc/"))
	}
	if want := []string{"bytes", "folder", "gone", "link", "mode", "new", "time"}; !slices.Equal(names, want) {
		t.Errorf("these differ: %q, want %q", names, want)
	}
}
