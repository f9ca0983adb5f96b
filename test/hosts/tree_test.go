package hosts_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// tree is what a host's folders of configuration hold: a line for each name, with
// type, mode, owner, target, time of change of a file, and the sum of its bytes.
type tree map[string]string

// takeTree reads /etc and all of /var/lib but the engines' own.
func (r *rig) takeTree(t *testing.T) tree {
	t.Helper()
	taken := tree{}
	for _, top := range []string{"etc", "var/lib"} {
		err := filepath.WalkDir(filepath.Join(r.host.Root, top), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := strings.TrimPrefix(path, r.host.Root)
			if name == "/var/lib/docker" || name == "/var/lib/containerd" {
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

// unlike says how two trees differ, nothing where they do not.
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

// sameTree fails the test where the host's folders are not what they were.
func (r *rig) sameTree(t *testing.T, when string, first tree) {
	t.Helper()
	if found := first.unlike(r.takeTree(t)); len(found) > 0 {
		t.Errorf("%s, the tree is not the first one:\n%s", when, strings.Join(found, "\n"))
	}
}
