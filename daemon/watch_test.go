package daemon

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"
)

// watching follows path, and answers with a wait for the next change that is told.
func watching(t *testing.T, path string) (changed chan struct{}) {
	t.Helper()
	l := logrus.New()
	l.SetOutput(io.Discard)
	changed = make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done, content := make(chan struct{}), glance(path)
	go func() {
		defer close(done)
		watchFile(ctx, l, path, content, changed)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return changed
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

func TestChangesAreNoticedHoweverTheyAreMade(t *testing.T) {
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
		{"folder exchanged", func(t *testing.T, dir string) {
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
		{"a ConfigMap's exchange", func(t *testing.T, dir string) {
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
			dir := t.TempDir()
			tt.prepare(t, dir)
			changed := watching(t, filepath.Join(dir, "etc", "config.toml"))
			for _, change := range tt.changes {
				change(t, dir)
				receive(t, changed)
			}
		})
	}
}

func TestALinkToItselfEndsTheSearch(t *testing.T) {
	dir := t.TempDir()
	symlink(t, "config.toml", dir+"/config.toml")
	if steps := stepsOf("/", dir+"/config.toml"); len(steps) != 1 || steps[0] != dir+"/config.toml" {
		t.Errorf("got %q", steps)
	}
}

func TestTheDaemonReloadsByItself(t *testing.T) {
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), nil)
	r.rewrite(named("two", addr))
	r.expect("RELOADING=1")
	r.expect("READY=1")
	wantAnswer(t, addr, "two")
	r.rewrite("nonsense")
	r.expect("the new configuration is not used")
	wantAnswer(t, addr, "two")
}
