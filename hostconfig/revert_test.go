package hostconfig

import (
	"context"
	"errors"
	"os"
	"path"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// busyHost is a host with every kind of file that sidemirror edits: ones that were there and ones
// that were not, of both engines.
func busyHost(t *testing.T) *Host {
	t.Helper()
	h := host(t, map[string]string{
		dockerJSON:       "{\n  \"debug\": true,\n  \"registry-mirrors\": [\"https://mirror.example\"]\n}\n",
		containerdConfig: "version = 2\n" + runcV2,
		rHosts:           theirs,
	})
	h.Versions[engine.Docker], h.Versions[engine.Containerd] = "20.10.24", "1.7.34"
	return h
}

func applyAll(t *testing.T, h *Host) {
	t.Helper()
	want := desired("docker.io", "r.example:5000", "r.example")
	want.RestartContainerd = true
	h.apply(t, want)
	if entries(t, h) != 5 {
		t.Fatalf("%d files have sidemirror's entry", entries(t, h))
	}
}

// entries counts the engines' files that hold sidemirror's address or mark.
func entries(t *testing.T, h *Host) int {
	t.Helper()
	n := 0
	for name, text := range h.snapshot(t) {
		if strings.HasPrefix(name, "/etc/") && strings.HasPrefix(text, "-") { // a regular file
			data, err := os.ReadFile(h.path(name))
			if err == nil && (strings.Contains(string(data), ourURL) || strings.Contains(string(data), "# sidemirror: this")) {
				n++
			}
		}
	}
	return n
}

// revertPartly reverts and wants an error that says all of it, with a hint for each part.
func revertPartly(t *testing.T, h *Host, says ...string) {
	t.Helper()
	_, err := Revert(context.Background(), h, ourURL)
	if err == nil {
		t.Fatal("no error")
	}
	text := problem.Format("", err)
	contains(t, text, says...)
	for _, part := range problem.Split(err) {
		if problem.Hint(part) == "" {
			t.Errorf("no hint for: %v", part)
		}
	}
	if t.Failed() {
		t.Logf("all that was said:\n%s", text)
	}
}

// Whatever became of the journal, what it told of is taken out: by the rest of it, by the marks and
// by the address.
func TestRevertTakesEverythingOutWhateverBecameOfTheJournal(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(dir, text string) error
		says  []string // nothing if there is no error
		left  bool     // the journal stays, since not all of it is understood
	}{
		"removed": {func(dir, _ string) error { return os.RemoveAll(dir) }, nil, false},
		"cut in the middle": {func(dir, text string) error {
			return os.WriteFile(dir+"/journal.json", []byte(text[:len(text)/2]), 0o600)
		}, nil, false},
		"cut at the end": {func(dir, text string) error {
			return os.WriteFile(dir+"/journal.json", []byte(text[:len(text)-3]), 0o600)
		}, nil, false},
		"emptied": {func(dir, _ string) error { return os.WriteFile(dir+"/journal.json", nil, 0o600) }, nil, true},
		"newer": {func(dir, text string) error {
			return os.WriteFile(dir+"/journal.json", []byte(strings.Replace(text, `"version": 2`, `"version": 3, "registries": {}`, 1)), 0o600)
		}, []string{"journal of version 3, which a newer sidemirror wrote", "hint: use that sidemirror"}, true},
		"originals lost": {func(dir, _ string) error { return os.RemoveAll(dir + "/originals") }, nil, false},
		"another user's": {func(dir, _ string) error { return os.Chown(dir, 12, 12) }, []string{"belongs to user 12 instead of"}, true},
		"a file":         {func(dir, _ string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) }, []string{"not a folder"}, true},
		"a folder in its place": {func(dir, _ string) error {
			return errors.Join(os.Remove(dir+"/journal.json"), os.Mkdir(dir+"/journal.json", 0o755))
		}, []string{"reading the journal", "not a regular file"}, true},
		"record of a write in place is damaged": {func(dir, _ string) error {
			return os.WriteFile(dir+"/in-place.json", []byte("{"), 0o600)
		}, []string{"damaged record of a write in place"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "another user's" && os.Geteuid() != 0 {
				t.Skip("only root may give a folder away")
			}
			h := busyHost(t)
			before := timeless(h.snapshot(t))
			applyAll(t, h)
			dir := h.path(journal.Folder)
			text, err := os.ReadFile(dir + "/journal.json")
			if err != nil {
				t.Fatal(err)
			}
			if err := test.spoil(dir, string(text)); err != nil {
				t.Fatal(err)
			}
			if len(test.says) == 0 {
				h.revert(t)
			} else {
				revertPartly(t, h, test.says...)
			}
			if n := entries(t, h); n != 0 {
				t.Errorf("%d files still have sidemirror's entry", n)
			}
			for _, file := range []string{dockerJSON, containerdConfig, rHosts} {
				if now := timeless(h.snapshot(t)); now[file] != before[file] {
					t.Errorf("%s was %q, is %q:\n%s", file, before[file], now[file], h.get(t, file))
				}
			}
			if _, err := os.Lstat(dir); (err == nil) != test.left {
				t.Errorf("the journal: %v", err)
			}
		})
	}
}

// What one file's state keeps from being taken out of that file alone, is said, is all that the
// journal stays for, and is taken out by the next revert once it can be.
func TestRevertLeavesOnlyTheFileThatItCannotReach(t *testing.T) {
	for name, test := range map[string]struct {
		file   string
		says   string
		spoil  func(h *Host, name string) error
		repair func(h *Host, name string) error
	}{
		"hard link": {rHosts, "has 2 hard links", func(h *Host, name string) error { return os.Link(h.path(name), h.path("/other")) }, func(h *Host, _ string) error { return os.Remove(h.path("/other")) }},
		"named pipe in its place": {containerdConfig, "not a regular file", func(h *Host, name string) error {
			return errors.Join(os.Rename(h.path(name), h.path("/etc/moved")), unix.Mkfifo(h.path(name), 0o644))
		}, func(h *Host, name string) error { return os.Rename(h.path("/etc/moved"), h.path(name)) }},
		"immutable":              {dockerJSON, "is immutable", func(h *Host, name string) error { return freeze(h, name, true) }, func(h *Host, name string) error { return freeze(h, name, false) }},
		"in an immutable folder": {rHosts, "is immutable", func(h *Host, name string) error { return freeze(h, path.Dir(name), true) }, func(h *Host, name string) error { return freeze(h, path.Dir(name), false) }},
		"full disk":              {dockerJSON, "free space", failAt("create", unix.ENOSPC), works},
		"disk error":             {rHosts, "input/output error", failAt("rename", unix.EIO), works},
		"read-only":              {containerdConfig, "make it writable", failAt("create", unix.EROFS), works},
	} {
		t.Run(name, func(t *testing.T) {
			h := busyHost(t)
			before := h.snapshot(t)
			applyAll(t, h)
			if err := test.spoil(h, test.file); errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOTSUP) {
				t.Skip("only root may make files immutable, where the file system has that")
			} else if err != nil {
				t.Fatal(err)
			}
			revertPartly(t, h, test.file, test.says)
			if n := entries(t, h); n > 1 {
				t.Errorf("%d files still have sidemirror's entry", n)
			}
			text := h.get(t, journal.Folder+"/journal.json")
			if !strings.Contains(text, test.file) || strings.Count(text, `"real"`) != 1 {
				t.Errorf("the journal:\n%s", text)
			}
			revertPartly(t, h, test.file, test.says) // again and again, to the same end
			if err := test.repair(h, test.file); err != nil {
				t.Fatal(err)
			}
			h.revert(t)
			sameTree(t, timeless(before), timeless(h.snapshot(t)))
		})
	}
}

func appendTo(text string) func(*Host, string) error {
	return func(h *Host, name string) error {
		data, err := os.ReadFile(h.path(name))
		return errors.Join(err, os.WriteFile(h.path(name), append(data, text...), 0o644))
	}
}

func failAt(op string, err error) func(*Host, string) error {
	return func(h *Host, name string) error { h.step = failing(op, name, err); return nil }
}

func works(h *Host, _ string) error { h.step = nil; return nil }

// freeze is chattr +i, or -i.
func freeze(h *Host, name string, frozen bool) error {
	const immutable = 0x10 // FS_IMMUTABLE_FL
	f, err := os.Open(h.path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	if flags &^= immutable; frozen {
		flags |= immutable
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
}

// A user's change that makes a file invalid does not keep the entry in it.
func TestRevertTakesTheEntryOutOfInvalidFiles(t *testing.T) {
	broken := map[string]string{rHosts: "[broken\n", containerdConfig: "[broken\n", dockerJSON: "// mine\n"}
	h := busyHost(t)
	before := make(map[string]string)
	for name := range broken {
		before[name] = h.get(t, name)
	}
	applyAll(t, h)
	for name, broken := range broken {
		if err := appendTo(broken)(h, name); err != nil {
			t.Fatal(err)
		}
	}
	h.revert(t)
	if n := entries(t, h); n != 0 {
		t.Errorf("%d files still have sidemirror's entry", n)
	}
	for name, text := range before {
		got := strings.TrimSpace(strings.TrimSuffix(h.get(t, name), broken[name]))
		if got != strings.TrimSpace(text) {
			t.Errorf("%s: was %q, is %q", name, text, got)
		}
	}
}

func TestRevertAfterTheEnginesAreGone(t *testing.T) {
	h := busyHost(t)
	before := h.snapshot(t)
	for _, program := range []string{"dockerd", "containerd"} {
		if err := errors.Join(os.MkdirAll(h.path("/usr/bin"), 0o755), os.WriteFile(h.path("/usr/bin/"+program), nil, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	idle(h)
	applyAll(t, h)
	if err := os.RemoveAll(h.path("/usr")); err != nil {
		t.Fatal(err)
	}
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

// The disk that the journal is on may be full or read-only: what the engines read is restored, and
// the journal is removed later.
func TestRevertDoesNotDependOnWritingTheJournal(t *testing.T) {
	for _, fault := range []error{unix.ENOSPC, unix.EROFS, unix.EIO} {
		h := busyHost(t)
		before := h.snapshot(t)
		applyAll(t, h)
		h.step = func(_, name string) error {
			if strings.HasPrefix(name, "/var") || strings.HasPrefix(name, "/.var") {
				return fault
			}
			return nil
		}
		if _, err := Revert(context.Background(), h, ourURL); !errors.Is(err, fault) {
			t.Errorf("%v: %v", fault, err)
		}
		if n := entries(t, h); n != 0 {
			t.Errorf("%v: %d files still have sidemirror's entry", fault, n)
		}
		h.step = nil
		h.revert(t)
		sameTree(t, before, h.snapshot(t))
	}
}
