package credential

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestACorrectedFileIsUsedAtOnceWithoutARestart(t *testing.T) {
	f := fileWith(t, auths("quay.io", "me:wrong"))
	before := mustLookup(t, f, "quay.io", "a/b")
	for _, tt := range []struct {
		name string
		mend func(text string)
	}{
		{"written in place, same length", func(text string) { write(t, f.Path, text) }},
		{"renamed over", func(text string) {
			write(t, f.Path+".new", text)
			if err := os.Rename(f.Path+".new", f.Path); err != nil {
				t.Fatal(err)
			}
		}},
		{"with the old time put back", func(text string) {
			info, err := os.Stat(f.Path)
			if err != nil {
				t.Fatal(err)
			}
			write(t, f.Path, text)
			if err := os.Chtimes(f.Path, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.mend(auths("quay.io", "me:right"))
			after := mustLookup(t, f, "quay.io", "a/b")
			if spell(after) != "me:right" || after.Generation == before.Generation {
				t.Errorf("got %q of generation %s, was %s", spell(after), after.Generation, before.Generation)
			}
			tt.mend(auths("quay.io", "me:wrong"))
			if back := mustLookup(t, f, "quay.io", "a/b"); back.Generation != before.Generation {
				t.Errorf("the old material has generation %s, was %s", back.Generation, before.Generation)
			}
		})
	}
}

// Times are kept in steps, so that of two writes within one the second does not show.
func TestFileJustWrittenIsNotRemembered(t *testing.T) {
	f := fileWith(t, auths("quay.io", "me:one"))
	mustLookup(t, f, "quay.io", "")
	if f.content.seen != (stamp{}) {
		t.Error("a file of this second is taken for unchanging")
	}
	info, err := os.Stat(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	s := stampOf(info)
	changed := time.Unix(s.ctime.Unix())
	if s.settled(changed.Add(time.Second)) || !s.settled(changed.Add(3*time.Second)) {
		t.Error("a file counts as settled at the wrong time")
	}
}

// An unchanged file is not read again: it could not be, its content is gone.
func TestUnchangedFileIsOnlyLookedAt(t *testing.T) {
	f := fileWith(t, auths("quay.io", "me:one"))
	info, err := os.Stat(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := parseDocument(fileKind, []byte(auths("quay.io", "me:remembered")))
	if err != nil {
		t.Fatal(err)
	}
	f.content = watched{seen: stampOf(info), content: doc}
	if got := spell(mustLookup(t, f, "quay.io", "")); got != "me:remembered" {
		t.Errorf("got %q", got)
	}
}

// troubles are what must not be read, and what the error has to say.
var troubles = []struct {
	name, want string
	needsRoot  bool
	make       func(t *testing.T, path string)
}{
	{name: "half-written", want: "line 1 is not JSON", make: func(t *testing.T, path string) {
		write(t, path, auths("quay.io", "me:two")[:30])
	}},
	{name: "emptied", want: "it is empty", make: func(t *testing.T, path string) { write(t, path, "") }},
	{name: "readable by every user", want: "mode 0644): chmod o-r ", make: func(t *testing.T, path string) {
		write(t, path, auths("quay.io", "me:two"))
		chmod(t, path, 0o644)
	}},
	{name: "writable by its group", want: "mode 0660): chmod go-w ", make: func(t *testing.T, path string) {
		write(t, path, auths("quay.io", "me:two"))
		chmod(t, path, 0o660)
	}},
	{name: "writable by all", want: "mode 0602): chmod go-w ", make: func(t *testing.T, path string) {
		write(t, path, auths("quay.io", "me:two"))
		chmod(t, path, 0o602)
	}},
	{name: "of another user", want: "belongs to uid 65534", needsRoot: true, make: func(t *testing.T, path string) {
		write(t, path, auths("quay.io", "me:two"))
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "a symlink out of its folder", want: "symbolic link", make: func(t *testing.T, path string) {
		target := filepath.Join(t.TempDir(), "config.json")
		write(t, target, auths("quay.io", "me:two"))
		replaceBy(t, path, func() error { return os.Symlink(target, path) })
	}},
	{name: "a symlink that climbs out", want: "symbolic link", make: func(t *testing.T, path string) {
		write(t, filepath.Join(filepath.Dir(path), "..", "elsewhere.json"), auths("quay.io", "me:two"))
		replaceBy(t, path, func() error { return os.Symlink("../elsewhere.json", path) })
	}},
	{name: "a folder", want: "not a regular file", make: func(t *testing.T, path string) {
		replaceBy(t, path, func() error { return os.Mkdir(path, 0o700) })
	}},
	{name: "a pipe", want: "not a regular file", make: func(t *testing.T, path string) {
		replaceBy(t, path, func() error { return unix.Mkfifo(path, 0o600) })
	}},
	{name: "endless", want: "longer than 1048576 bytes", make: func(t *testing.T, path string) {
		write(t, path, auths("quay.io", "me:two"))
		if err := os.Truncate(path, 1<<40); err != nil {
			t.Fatal(err)
		}
	}},
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func replaceBy(t *testing.T, path string, make func() error) {
	t.Helper()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := make(); err != nil {
		t.Fatal(err)
	}
}

func TestFileInTroubleKeepsTheLastGoodLoginAndShowsAFault(t *testing.T) {
	for _, tt := range troubles {
		t.Run(tt.name, func(t *testing.T) {
			if tt.needsRoot && os.Geteuid() != 0 {
				t.Skip("needs root to give a file away")
			}
			f := fileWith(t, auths("quay.io", "me:one"))
			mustLookup(t, f, "quay.io", "")
			tt.make(t, f.Path)
			for range 2 {
				if got := spell(mustLookup(t, f, "quay.io", "")); got != "me:one" {
					t.Errorf("got %q, want the last good one", got)
				}
			}
			fault := f.Fault()
			if fault == nil || !strings.Contains(fault.Error(), tt.want) || !strings.Contains(fault.Error(), f.Path) {
				t.Errorf("fault %v, want %q and the path", fault, tt.want)
			}
			if err := os.RemoveAll(f.Path); err != nil {
				t.Fatal(err)
			}
			write(t, f.Path, auths("quay.io", "me:three"))
			if got := spell(mustLookup(t, f, "quay.io", "")); got != "me:three" || f.Fault() != nil {
				t.Errorf("after the fix: %q, fault %v", got, f.Fault())
			}
		})
	}
}

func TestFileInTroubleFromTheStartIsNeverSilentlyAnonymous(t *testing.T) {
	for _, tt := range troubles {
		t.Run(tt.name, func(t *testing.T) {
			if tt.needsRoot && os.Geteuid() != 0 {
				t.Skip("needs root to give a file away")
			}
			f := &File{Path: filepath.Join(t.TempDir(), "config.json")}
			// Absent is not in trouble; what then appears is.
			if got := spell(mustLookup(t, f, "quay.io", "")); got != "" {
				t.Errorf("absent, and yet %q", got)
			}
			tt.make(t, f.Path)
			for range 2 {
				c, err := f.Lookup(t.Context(), "docker.io", "library/alpine")
				if err == nil || !strings.Contains(err.Error(), tt.want) || !c.IsZero() {
					t.Errorf("got %q, %v; want %q", spell(c), err, tt.want)
				}
			}
		})
	}
}

func TestFileThatWasTakenAwayTakesItsLoginsWithIt(t *testing.T) {
	f := fileWith(t, auths("quay.io", "me:one"))
	mustLookup(t, f, "quay.io", "")
	if err := os.Remove(f.Path); err != nil {
		t.Fatal(err)
	}
	if got := spell(mustLookup(t, f, "quay.io", "")); got != "" {
		t.Errorf("got %q", got)
	}
	if err := f.Fault(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("fault: %v", err)
	}
}

func TestFileWithoutSecretsMayBeRead(t *testing.T) {
	f := fileWith(t, `{"credHelpers": {"x.example": "ecr-login"}, "auths": {"quay.io": {}}}`)
	f.Helpers = &shelf{}
	chmod(t, f.Path, 0o644)
	if got := spell(mustLookup(t, f, "x.example", "a/b")); got != "" || f.Fault() != nil {
		t.Errorf("got %q, fault %v", got, f.Fault())
	}
}

func TestFileForTheDaemonsGroupIsRead(t *testing.T) {
	f := fileWith(t, auths("quay.io", "me:one"))
	chmod(t, f.Path, 0o640)
	if got := spell(mustLookup(t, f, "quay.io", "")); got != "me:one" {
		t.Errorf("got %q", got)
	}
}

// A mounted Kubernetes secret is config.json -> ..data/config.json -> ..2026_01_01/config.json.
func TestSymlinkWithinTheFolderIsFollowed(t *testing.T) {
	dir := t.TempDir()
	for version, text := range map[string]string{"..one": auths("quay.io", "me:one"), "..two": auths("quay.io", "me:two")} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "config.json"), text)
	}
	data, path := filepath.Join(dir, "..data"), filepath.Join(dir, "config.json")
	replaceBy(t, data, func() error { return os.Symlink("..one", data) })
	replaceBy(t, path, func() error { return os.Symlink("..data/config.json", path) })
	f := &File{Path: path}
	if got := spell(mustLookup(t, f, "quay.io", "")); got != "me:one" {
		t.Fatalf("got %q", got)
	}
	replaceBy(t, data, func() error { return os.Symlink("..two", data) })
	if got := spell(mustLookup(t, f, "quay.io", "")); got != "me:two" {
		t.Errorf("after the switch: %q", got)
	}
}

// Each version's password is one letter many times over: another letter in it would
// be another version's.
func TestSwappedMidReadIsNeverAMixture(t *testing.T) {
	f := fileWith(t, auths("quay.io", "me:0"))
	mustLookup(t, f, "quay.io", "")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			password := strings.Repeat(string(rune('0'+i%10)), 50_000*(1+i%3))
			if err := os.WriteFile(f.Path, []byte(auths("quay.io", "me:"+password)), 0o600); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 300 {
		text := mustLookup(t, f, "quay.io", "").Password.Reveal()
		if strings.Trim(text, text[:1]) != "" {
			t.Error("a password of two versions")
			break
		}
	}
	close(stop)
	wg.Wait()
	write(t, f.Path, auths("quay.io", "me:last"))
	if got := spell(mustLookup(t, f, "quay.io", "")); got != "me:last" {
		t.Errorf("after all: %q", got[:min(len(got), 20)])
	}
}

func TestLookupsAtOnceAgreeWhileTheFileIsReplaced(t *testing.T) {
	f := fileWith(t, auths("quay.io", "me:0"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				c, err := f.Lookup(t.Context(), "quay.io", "a/b")
				if err != nil || !strings.HasPrefix(spell(c), "me:") {
					t.Errorf("got %q, %v", spell(c), err)
				}
			}
		})
	}
	for i := range 50 {
		write(t, f.Path+".new", auths("quay.io", "me:"+strings.Repeat("x", i)))
		if err := os.Rename(f.Path+".new", f.Path); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

func BenchmarkFileLookup(b *testing.B) {
	path := filepath.Join(b.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(auths("quay.io", "me:one")), 0o600); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	doc, err := parseDocument(fileKind, []byte(auths("quay.io", "me:one")))
	if err != nil {
		b.Fatal(err)
	}
	f := &File{Path: path, content: watched{seen: stampOf(info), content: doc}}
	for b.Loop() {
		if _, err := f.Lookup(b.Context(), "quay.io", "a/b"); err != nil {
			b.Fatal(err)
		}
	}
}

// What has changed in the meantime counts from the next look on, and a fault is looked for each time.
func TestOneLookAtAFileServesABurst(t *testing.T) {
	t.Parallel()
	f := fileWith(t, auths("quay.io", "me:one"))
	f.LookEvery(time.Hour)
	mustLookup(t, f, "quay.io", "")
	write(t, f.Path, "{")
	if c := mustLookup(t, f, "quay.io", ""); spell(c) != "me:one" {
		t.Errorf("got %q within the time of one look", spell(c))
	}
	if f.Fault() == nil {
		t.Error("the fault is not seen")
	}
	write(t, f.Path, auths("quay.io", "me:two"))
	f.LookEvery(time.Nanosecond)
	if c := mustLookup(t, f, "quay.io", ""); spell(c) != "me:two" {
		t.Errorf("got %q after that time", spell(c))
	}
}
