package filewatch

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// follow follows path and returns a channel that receives its changes.
func follow(t *testing.T, path string) <-chan struct{} {
	t.Helper()
	c := NewContents()
	c.Follow(path)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		c.Close()
	})
	return c.Changed()
}

func receive(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("no change was reported in 30 s")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestEveryKindOfChangeIsReported(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		changes []func(t *testing.T, dir string)
	}{
		{"written in place, then replaced, then removed", func(t *testing.T, dir string) {
			mkdir(t, dir+"/etc")
			write(t, dir+"/etc/config.toml", "1")
		}, []func(t *testing.T, dir string){
			func(t *testing.T, dir string) { write(t, dir+"/etc/config.toml", "2") },
			func(t *testing.T, dir string) { replaceFile(t, dir+"/etc/config.toml", "3") },
			func(t *testing.T, dir string) {
				if err := os.Remove(dir + "/etc/config.toml"); err != nil {
					t.Fatal(err)
				}
			},
			func(t *testing.T, dir string) { write(t, dir+"/etc/config.toml", "4") },
		}},
		{"folder that did not exist", func(t *testing.T, dir string) {}, []func(t *testing.T, dir string){
			func(t *testing.T, dir string) {
				mkdir(t, dir+"/etc")
				write(t, dir+"/etc/config.toml", "1")
			},
			func(t *testing.T, dir string) { write(t, dir+"/etc/config.toml", "2") },
		}},
		{"folder replaced", func(t *testing.T, dir string) {
			mkdir(t, dir+"/etc")
			write(t, dir+"/etc/config.toml", "1")
			mkdir(t, dir+"/next")
			write(t, dir+"/next/config.toml", "2")
		}, []func(t *testing.T, dir string){
			func(t *testing.T, dir string) {
				rename(t, dir+"/etc", dir+"/old")
				rename(t, dir+"/next", dir+"/etc")
			},
			func(t *testing.T, dir string) { write(t, dir+"/etc/config.toml", "3") },
		}},
		{"exchange of links, as for a ConfigMap", func(t *testing.T, dir string) {
			mkdir(t, dir+"/etc/..1")
			write(t, dir+"/etc/..1/config.toml", "1")
			symlink(t, "..1", dir+"/etc/..data")
			symlink(t, "..data/config.toml", dir+"/etc/config.toml")
		}, []func(t *testing.T, dir string){
			func(t *testing.T, dir string) {
				mkdir(t, dir+"/etc/..2")
				write(t, dir+"/etc/..2/config.toml", "2")
				symlink(t, "..2", dir+"/etc/..tmp")
				rename(t, dir+"/etc/..tmp", dir+"/etc/..data")
				if err := os.RemoveAll(dir + "/etc/..1"); err != nil {
					t.Fatal(err)
				}
			},
			func(t *testing.T, dir string) { write(t, dir+"/etc/..2/config.toml", "3") },
		}},
		{"file behind an absolute link", func(t *testing.T, dir string) {
			mkdir(t, dir+"/etc")
			mkdir(t, dir+"/srv")
			write(t, dir+"/srv/real.toml", "1")
			symlink(t, dir+"/srv/real.toml", dir+"/etc/config.toml")
		}, []func(t *testing.T, dir string){
			func(t *testing.T, dir string) { write(t, dir+"/srv/real.toml", "2") },
			func(t *testing.T, dir string) { replaceFile(t, dir+"/srv/real.toml", "3") },
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			tt.prepare(t, dir)
			changed := follow(t, filepath.Join(dir, "etc", "config.toml"))
			for _, change := range tt.changes {
				change(t, dir)
				receive(t, changed)
			}
		})
	}
}

func TestLinkToItselfEndsTheSearch(t *testing.T) {
	dir := t.TempDir()
	symlink(t, "config.toml", dir+"/config.toml")
	if steps := stepsOf("/", dir+"/config.toml"); len(steps) != 1 || steps[0] != dir+"/config.toml" {
		t.Errorf("got %q", steps)
	}
}

func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+".new", text)
	rename(t, path+".new", path)
}

func TestSameContentsAreNotReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name, other := filepath.Join(dir, "config.toml"), filepath.Join(dir, "other.toml")
	write(t, name, "1")
	changed := follow(t, name)
	replaceFile(t, name, "1")
	write(t, other, "1")
	replaceFile(t, name, "2")
	receive(t, changed)
	select {
	case <-changed:
		t.Error("a second change was reported")
	case <-time.After(2 * quietPeriod):
	}
}

func TestFileThatIsFollowedAgainIsComparedWithItsOldContents(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	write(t, first, "1")
	write(t, second, "1")
	c := NewContents()
	defer c.Close()
	c.Follow(first)
	write(t, first, "2") // nothing runs yet that could see it
	c.Follow(first, second)
	c.compare()
	receive(t, c.Changed())
	write(t, second, "2")
	c.compare()
	receive(t, c.Changed())
}

func TestChangesAreFoundWithoutTheKernelsReports(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "config.toml")
	write(t, name, "1")
	c := &Contents{changed: make(chan struct{}, 1), poll: true}
	c.Follow(name)
	write(t, name, "2")
	c.compare()
	receive(t, c.Changed())
}

func TestStateOfFileThatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		pipe:                       "p---------",
		dir:                        "d---------",
		filepath.Join(dir, "none"): "no such file",
	} {
		if got := stateOf(path); !strings.Contains(got, want) {
			t.Errorf("the state of %s is %q, want %q in it", path, got, want)
		}
	}
}
