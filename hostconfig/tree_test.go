package hostconfig

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestNothingOutsideTheRootIsTouched(t *testing.T) {
	for name, link := range map[string]struct{ at, target string }{
		"file, relative":   {dockerJSON, "../../../outside/daemon.json"},
		"file, absolute":   {dockerJSON, "OUTSIDE/daemon.json"},
		"folder, relative": {"/etc/docker", "../../outside"},
		"folder, absolute": {"/etc/docker", "OUTSIDE"},
		"journal":          {"/var/lib", "../../outside"},
		"parent":           {"/etc/docker/certs.d", "../../../../../../../../outside"},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, map[string]string{"/outside/daemon.json": "{}", "/outside/keep": "x", "/root/etc/": "", "/root/var/": ""})
			outer := *h
			h.Root = filepath.Join(h.Root, "root")
			h.Present = []string{engine.Docker}
			h.Versions[engine.Docker] = ""
			if err := os.MkdirAll(filepath.Dir(h.path(link.at)), 0o755); err != nil {
				t.Fatal(err)
			}
			target := strings.Replace(link.target, "OUTSIDE", outer.path("/outside"), 1)
			if err := os.Symlink(target, h.path(link.at)); err != nil {
				t.Fatal(err)
			}
			before := outer.snapshot(t)
			want := dockerOnly()
			plan, err := Make(context.Background(), h, want)
			if err == nil {
				_, err = Apply(context.Background(), h, plan)
			}
			if err == nil || !strings.Contains(err.Error(), "symbolic link") {
				t.Errorf("error: %v", err)
			}
			after := outer.snapshot(t)
			for file := range before {
				if strings.HasPrefix(file, "/outside") && before[file] != after[file] {
					t.Errorf("%s: was %q, is %q", file, before[file], after[file])
				}
			}
			for file := range after {
				if strings.HasPrefix(file, "/outside") && before[file] == "" {
					t.Errorf("%s is new", file)
				}
			}
		})
	}
}

func TestFilesOfAnUnexpectedKindAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		make func(name string) error
		says string
	}{
		"hard link": {func(name string) error {
			if err := os.WriteFile(name, []byte("{}"), 0o644); err != nil {
				return err
			}
			return os.Link(name, name+".other")
		}, "has 2 hard links"},
		"named pipe": {func(name string) error { return syscall.Mkfifo(name, 0o644) }, "not a regular file"},
		"folder":     {func(name string) error { return os.Mkdir(name, 0o755) }, "not a regular file"},
		"loop":       {func(name string) error { return os.Symlink("daemon.json", name) }, "loop of symbolic links"},
		"dangling":   {func(name string) error { return os.Symlink("/nowhere/x", name) }, "does not exist"},
		"64 MiB": {func(name string) error {
			if err := os.WriteFile(name, nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(name, 64<<20)
		}, "larger than 16 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			h := dockerHost(t, "20.10.24", map[string]string{"/etc/docker/": "", "/etc/containerd/": ""})
			if err := test.make(h.path(dockerJSON)); err != nil {
				t.Fatal(err)
			}
			plan := h.plan(t, desired("docker.io"))
			contains(t, refusals(plan), dockerJSON+": ", test.says)
			result, err := Apply(context.Background(), h, plan)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error: %v", err)
			}
			if len(result.Written) != 1 {
				t.Errorf("one refusal kept the others from being written: %q", result.Written)
			}
		})
	}
}

func TestAFileExchangedBetweenPlanAndApplyIsLeftAlone(t *testing.T) {
	for name, swap := range map[string]func(h *Host, name string) error{
		"edited":    func(_ *Host, name string) error { return os.WriteFile(name, []byte(`{"icc": true}`), 0o644) },
		"removed":   func(_ *Host, name string) error { return os.Remove(name) },
		"hard link": func(_ *Host, name string) error { return os.Link(name, name+".other") },
		"link": func(h *Host, name string) error {
			if err := os.Rename(name, h.path("/srv/theirs.json")); err != nil {
				return err
			}
			return os.Symlink("/etc/passwd", name)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{}", "/srv/": ""})
			plan := h.plan(t, dockerOnly())
			if err := swap(h, h.path(dockerJSON)); err != nil {
				t.Fatal(err)
			}
			before := h.snapshot(t)
			if _, err := Apply(context.Background(), h, plan); err == nil {
				t.Error("no error")
			}
			sameTree(t, before, h.snapshot(t))
		})
	}
}

// What another program writes in the instant before the rename must not be lost.
func TestAFileChangedDuringTheWriteIsLeftAlone(t *testing.T) {
	h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{}"})
	h.step = func(op, path string) error {
		if op == "sync" && path == dockerJSON {
			return os.WriteFile(h.path(dockerJSON), []byte(`{"icc": true}`), 0o644)
		}
		return nil
	}
	if _, err := h.try(t, dockerOnly()); err == nil || !strings.Contains(err.Error(), "another program changed it") {
		t.Errorf("error: %v", err)
	}
	if got := h.get(t, dockerJSON); got != `{"icc": true}` {
		t.Errorf("got %s", got)
	}
	h.missing(t, "/var")
}

func TestOnlyOneRunAtATimeChangesAHost(t *testing.T) {
	h := dockerHost(t, "20.10.24", nil)
	tree, err := hostfs.Open(h.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	h.patience = time.Millisecond
	unlock, err := tree.Lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.try(t, dockerOnly()); err == nil || !strings.Contains(err.Error(), "another sidemirror") {
		t.Errorf("error: %v", err)
	}
	if err := unlock.Close(); err != nil {
		t.Fatal(err)
	}
	h.apply(t, dockerOnly())
}

func TestFilesOfOtherProgramsInCreatedFoldersStay(t *testing.T) {
	h := host(t, map[string]string{"/etc/containerd/": ""})
	h.apply(t, containerdOnly("r.example"))
	h.put(t, rFolder+"/notes", "mine")
	h.put(t, "/var/lib/status", "{}")
	h.revert(t)
	h.missing(t, rHosts)
	h.missing(t, journal.Folder)
	h.get(t, rFolder+"/notes")
	h.get(t, "/var/lib/status")
}

func TestTheJournalIsReadableByItsOwnerOnly(t *testing.T) {
	h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{}"})
	h.apply(t, dockerOnly())
	for name, mode := range map[string]os.FileMode{journal.Folder: 0o700, journal.Folder + "/originals": 0o700, journal.Folder + "/journal.json": 0o600} {
		info, err := os.Stat(h.path(name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// A user who could write the journal could have root write any file.
func TestAJournalOfAnotherUserIsNotObeyed(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(dir string) error
		says  string
	}{
		"owner":     {func(dir string) error { return os.Chown(dir, 12, 0) }, "belongs to user 12 instead of"},
		"group":     {func(dir string) error { return os.Chmod(dir, 0o770) }, "other users may write to it"},
		"all users": {func(dir string) error { return os.Chmod(dir, 0o702) }, "chmod 700"},
		"link": {func(dir string) error {
			if err := os.Rename(dir, dir+"2"); err != nil {
				return err
			}
			return os.Symlink(filepath.Base(dir)+"2", dir)
		}, "not a folder"},
		"file": {func(dir string) error {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			return os.WriteFile(dir, nil, 0o600)
		}, "not a folder"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "owner" && os.Geteuid() != 0 {
				t.Skip("only root may give a folder away")
			}
			h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{}"})
			h.apply(t, dockerOnly())
			if err := test.spoil(h.path(journal.Folder)); err != nil {
				t.Fatal(err)
			}
			before := h.snapshot(t)
			if _, err := Make(context.Background(), h, dockerOnly()); err == nil {
				t.Error("a plan has no error")
			}
			if _, err := Apply(context.Background(), h, Plan{}); err == nil {
				t.Error("apply has no error")
			}
			sameTree(t, before, h.snapshot(t))
			// What is marked or known by its address is taken out all the same.
			if _, err := Revert(context.Background(), h, ourURL); err == nil || !strings.Contains(err.Error(), journal.Folder) || !strings.Contains(problem.Format("", err), test.says) {
				t.Errorf("error: %v", err)
			}
			if got := h.get(t, dockerJSON); got != "{}" {
				t.Errorf("daemon.json is %s", got)
			}
			after := h.snapshot(t)
			delete(before, dockerJSON)
			delete(after, dockerJSON)
			sameTree(t, before, after)
		})
	}
}

func TestAFullDiskHasAHint(t *testing.T) {
	denied := "run as root"
	if os.Geteuid() == 0 {
		denied = "root without capabilities"
	}
	for fault, hint := range map[syscall.Errno]string{syscall.ENOSPC: "free space", syscall.EROFS: "read-only", syscall.EPERM: "lsattr", syscall.EACCES: denied} {
		h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{}"})
		h.step = failing("write", dockerJSON, fault)
		if _, err := h.try(t, dockerOnly()); err == nil || !strings.Contains(err.Error(), dockerJSON) || !strings.Contains(problem.Format("", err), hint) {
			t.Errorf("%v: %v", fault, err)
		}
	}
}
