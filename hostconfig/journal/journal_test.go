package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// open opens the host below dir.
func open(t testing.TB, dir string) *hostfs.Host {
	t.Helper()
	h, err := hostfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// put writes files into a folder.
func put(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// version1 is a host after sidemirror 130effd, the last to write version 1, applied its
// configuration there.
func version1(t testing.TB, name string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "host")
	if err := os.CopyFS(dir, os.DirFS("testdata/version1/"+name+"/after")); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"", "/originals"} {
		if err := os.Chmod(dir+Folder+folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t *testing.T, h *hostfs.Host) *Journal {
	t.Helper()
	j, err := Load(h)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// record notes that a file is about to be written.
func record(t *testing.T, j *Journal, engine, name, base, after string) {
	t.Helper()
	now, err := j.host.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	edit := Edit{Engine: engine, Kind: "hosts.toml", Path: name, URL: "http://127.0.0.1:305", Contents: [][]byte{[]byte(after)}}
	if now.Exists() {
		edit.Base = []byte(base)
	}
	if err := errors.Join(j.Record(edit, now), j.Save()); err != nil {
		t.Fatal(err)
	}
}

func TestVersion1IsReadWithOneEntryForEachRealFile(t *testing.T) {
	for name, want := range map[string]int{"plain": 6, "farm": 9} {
		dir := version1(t, name)
		j := load(t, open(t, dir))
		if len(j.Files) != want || j.Version != version {
			t.Errorf("%s: %d entries, version %d", name, len(j.Files), j.Version)
		}
		for _, e := range j.Files {
			f, err := j.host.Read(e.Real)
			if err != nil || !e.IsOurs(f.Data) {
				t.Errorf("%s: %s is not as it was written: %v", name, e.Real, err)
			}
			before, err := os.ReadFile("testdata/version1/" + name + "/before" + e.Real)
			original, err2 := j.Original(e)
			if err2 != nil || errors.Is(err, fs.ErrNotExist) == e.Existed || string(original) != string(before) {
				t.Errorf("%s: original of %s: %q, want %q: %v", name, e.Real, original, before, err2)
			}
		}
		if name == "farm" {
			common := j.Find("/etc/containerd/certs.d/ghcr.io/hosts.toml")
			want := []string{"/etc/containerd/certs.d/docker.io/hosts.toml", "/etc/containerd/certs.d/ghcr.io/hosts.toml"}
			if common == nil || common.Real != "/etc/containerd/certs.d/common/hosts.toml" || !slices.Equal(common.Paths, want) || !slices.Equal(common.Engines, []string{"containerd"}) {
				t.Errorf("%+v", common)
			}
		}
		// Written again, it is a version that this sidemirror reads in the same way.
		if err := j.Save(); err != nil {
			t.Fatal(err)
		}
		again := load(t, open(t, dir))
		if !reflect.DeepEqual(again.Files, j.Files) || again.Version != version {
			t.Errorf("%s: read again as %+v", name, again)
		}
		if text, err := os.ReadFile(dir + Folder + "/journal.json"); err != nil || !strings.Contains(string(text), `"version": 2,`) {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

// Up to version 1 the second name of a file could be recorded when the file had the entry of the
// first already, or a user's change since.
func TestOfSeveralOriginalsTheOneIsTakenThatBelongsToTheFileAsItIs(t *testing.T) {
	for now, want := range map[string]string{"first, edited": "first", "second, edited": "second", "a user's": "first"} {
		dir := t.TempDir()
		put(t, dir, map[string]string{"etc/file": now})
		merged := merge(open(t, dir), []*Entry{
			{Real: "/etc/file", Path: "/etc/a", Engine: "docker", Existed: true, Original: "first", Ours: []string{hostfs.Hash([]byte("first, edited"))}},
			{Real: "/etc/file", Path: "/etc/b", Engine: "containerd", Existed: true, Original: "second", Ours: []string{hostfs.Hash([]byte("second, edited"))}},
		})
		if len(merged) != 1 || merged[0].Original != want || !slices.Equal(merged[0].Engines, []string{"docker", "containerd"}) {
			t.Errorf("%s: %+v", now, merged[0])
		}
	}
}

func TestSeveralNamesOfOneFileAreOneEntry(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"etc/common/hosts.toml": "before"})
	for _, link := range []string{"docker.io", "ghcr.io"} {
		if err := os.Symlink("common", filepath.Join(dir, "etc", link)); err != nil {
			t.Fatal(err)
		}
	}
	j := load(t, open(t, dir))
	record(t, j, "containerd", "/etc/docker.io/hosts.toml", "before", "after")
	put(t, dir, map[string]string{"etc/common/hosts.toml": "after"})
	record(t, j, "docker", "/etc/ghcr.io/hosts.toml", "before", "after")
	j = load(t, open(t, dir))
	if len(j.Files) != 1 {
		t.Fatalf("%d entries", len(j.Files))
	}
	e := j.Files[0]
	if e.Engine != "containerd" || !slices.Equal(e.Engines, []string{"containerd", "docker"}) || e.Path != "/etc/docker.io/hosts.toml" || len(e.Paths) != 2 {
		t.Errorf("%+v", e)
	}
	if original, err := j.Original(e); err != nil || string(original) != "before" {
		t.Errorf("original %q, %v", original, err)
	}
	for _, name := range []string{"/etc/common/hosts.toml", "/etc/docker.io/hosts.toml", "/etc/ghcr.io/hosts.toml"} {
		if j.Find(name) != e {
			t.Errorf("not found by %s", name)
		}
	}
	// A name that leads elsewhere by now is not that file's any more.
	if err := errors.Join(os.Remove(dir+"/etc/ghcr.io"), os.Mkdir(dir+"/etc/ghcr.io", 0o755)); err != nil {
		t.Fatal(err)
	}
	if got := j.Find("/etc/ghcr.io/hosts.toml"); got != nil {
		t.Errorf("found %+v", got)
	}
	j.Drop(e.Real)
	if err := j.Save(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/var"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the journal is left: %v", err)
	}
}

func TestWhatAnotherProgramWroteSinceBecomesTheOriginal(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"etc/file": "before"})
	j := load(t, open(t, dir))
	record(t, j, "docker", "/etc/file", "before", "after")
	put(t, dir, map[string]string{"etc/file": "after, and a user's line"})
	record(t, j, "containerd", "/etc/file", "a user's line", "after again")
	e := load(t, open(t, dir)).Find("/etc/file")
	original, err := j.Original(e)
	if err != nil || string(original) != "a user's line" || !e.Attrs.Mtime.IsZero() || !slices.Equal(e.Engines, []string{"docker", "containerd"}) {
		t.Errorf("%q, %v, %+v", original, err, e)
	}
	list, err := os.ReadDir(dir + Folder + "/originals")
	if err != nil || len(list) != 1 {
		t.Errorf("%d originals, %v", len(list), err)
	}
}

// codes are those of the problems of j.
func codes(j *Journal) string {
	var list []string
	for _, err := range j.Problems {
		var p *problem.Problem
		if !errors.As(err, &p) {
			list = append(list, err.Error())
		} else if p.Hint == "" {
			list = append(list, string(p.Code)+" without a hint")
		} else if !slices.Contains(list, string(p.Code)) {
			list = append(list, string(p.Code))
		}
	}
	return strings.Join(list, " ")
}

// A journal that is cut anywhere gives the entries that are whole, is not obeyed by what changes
// files, and is not overwritten.
func TestAJournalThatIsCutGivesItsWholeEntries(t *testing.T) {
	dir := version1(t, "plain")
	h := open(t, dir)
	whole := load(t, h)
	name := dir + Folder + "/journal.json"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for n := 0; n < len(text)-1; n += 3 {
		if err := os.WriteFile(name, text[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(h); err == nil {
			t.Fatalf("%d bytes: no error", n)
		}
		j := Salvage(h)
		if !strings.HasPrefix(codes(j), "journal-damaged") || strings.Contains(codes(j), "without") {
			t.Fatalf("%d bytes: %s", n, codes(j))
		}
		if len(j.Files) < most || len(j.Files) > len(whole.Files) || len(j.Files) > 0 && !reflect.DeepEqual(j.Files, whole.Files[:len(j.Files)]) {
			t.Fatalf("%d bytes: %d entries after %d", n, len(j.Files), most)
		}
		most = len(j.Files)
		if err := errors.Join(j.Clean(), j.Save()); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if now, err := os.ReadFile(name); n > 0 && (err != nil || !bytes.Equal(now, text[:n])) {
			t.Fatalf("%d bytes: it was overwritten: %v", n, err)
		}
	}
	if most != len(whole.Files) {
		t.Errorf("at most %d entries", most)
	}
	if list, err := os.ReadDir(dir + Folder + "/originals"); err != nil || len(list) != 3 {
		t.Errorf("%d originals, %v", len(list), err)
	}
}

func TestADamagedJournalIsRemovedOnceNothingOfItIsUnknown(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(text string) string
		codes string
		left  bool // after all entries that could be read are dropped
	}{
		"no end":         {func(s string) string { return s[:len(s)-6] }, "journal-damaged", false},
		"more after it":  {func(s string) string { return s + "{}" }, "journal-damaged", false},
		"no entries":     {func(s string) string { return s[:strings.Index(s, `"files"`)] }, "journal-damaged original-unknown", true},
		"half of it":     {func(s string) string { return s[:len(s)/2] }, "journal-damaged original-unknown", true},
		"empty":          {func(string) string { return "" }, "journal-damaged original-unknown", true},
		"binary":         {func(string) string { return "\x00\x01\x02" }, "journal-damaged original-unknown", true},
		"a list":         {func(string) string { return "[]" }, "journal-damaged original-unknown", true},
		"null":           {func(string) string { return "null" }, "journal-damaged original-unknown", true},
		"version 0":      {func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 0`, 1) }, "journal-damaged", false},
		"unknown field":  {func(s string) string { return strings.Replace(s, `"kind"`, `"sort"`, 1) }, "journal-damaged original-unknown", true},
		"newer, known":   {func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 3`, 1) }, "journal-version", false},
		"newer, unknown": {func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 3, "more": [1]`, 1) }, "journal-version", true},
		"newer entries": {func(s string) string {
			return strings.Replace(strings.Replace(s, `"version": 1`, `"version": 3`, 1), `"kind"`, `"more": {}, "kind"`, 1)
		}, "journal-version", true},
		"newer, damaged": {func(s string) string { return strings.Replace(s[:len(s)-6], `"version": 1`, `"version": 3`, 1) }, "journal-damaged", false},
		"relative path": {func(s string) string {
			return strings.Replace(s, `"/etc/docker/daemon.json"`, `"etc/docker/daemon.json"`, 1)
		}, "journal-damaged original-unknown", true},
		"path with dots": {func(s string) string {
			return strings.Replace(s, `"/etc/docker/daemon.json"`, `"/etc/../daemon.json"`, 1)
		}, "journal-damaged original-unknown", true},
		"original outside": {func(s string) string { return strings.Replace(s, `"original": "`, `"original": "../../../../etc/`, 1) }, "journal-damaged original-unknown", true},
		"set-uid mode, 64": {func(s string) string { return strings.Replace(s, `"mode": 420`, `"mode": 4294967295`, 1) }, "journal-damaged original-unknown", true},
		"negative user":    {func(s string) string { return strings.Replace(s, `"uid": 0`, `"uid": -1`, 1) }, "journal-damaged original-unknown", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := version1(t, "plain")
			file := dir + Folder + "/journal.json"
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			spoiled := test.spoil(string(text))
			if err := os.WriteFile(file, []byte(spoiled), 0o600); err != nil {
				t.Fatal(err)
			}
			j := Salvage(open(t, dir))
			if got := codes(j); got != test.codes {
				t.Errorf("problems: %s", problem.Format("", errors.Join(j.Problems...)))
			}
			if err := j.Record(Edit{Engine: "docker", Kind: "daemon.json", Path: "/etc/x"}, hostfs.File{Path: "/etc/x", Real: "/etc/x"}); err == nil {
				t.Error("recorded all the same")
			}
			for _, e := range slices.Clone(j.Files) {
				j.Drop(e.Real)
			}
			j.Folders = nil
			if err := errors.Join(j.Clean(), j.Save()); err != nil {
				t.Error(err)
			}
			now, err := os.ReadFile(file)
			if test.left && string(now) != spoiled || !test.left && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("left: %q, %v", now, err)
			}
		})
	}
}

func TestADamagedRecordOfAWriteInPlaceIsReportedAndLeft(t *testing.T) {
	dir := version1(t, "plain")
	name := dir + Folder + "/in-place.json"
	if err := os.WriteFile(name, []byte(`{"real": "/etc/docker/daemon.json", "bef`), 0o600); err != nil {
		t.Fatal(err)
	}
	h := open(t, dir)
	j := Salvage(h)
	if codes(j) != "journal-damaged" || len(j.Files) != 6 || h.Torn != nil {
		t.Errorf("%s, %d entries", codes(j), len(j.Files))
	}
	j.Files, j.Folders = nil, nil
	if err := errors.Join(j.Clean(), j.Save()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(name); err != nil {
		t.Error(err)
	}
}

// Another user could have any file written by way of the journal.
func TestAJournalThatAnotherUserCouldHaveWrittenIsNotObeyed(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(dir string) error
		says  string
	}{
		"owner":           {func(dir string) error { return os.Chown(dir, 12, 0) }, "belongs to user 12 instead of"},
		"group":           {func(dir string) error { return os.Chmod(dir, 0o770) }, "other users may write to it"},
		"all users":       {func(dir string) error { return os.Chmod(dir, 0o702) }, "other users may write to it"},
		"folder above it": {func(dir string) error { return os.Chmod(filepath.Dir(dir), 0o777) }, "other users than root may write to /var/lib"},
		"owner above it":  {func(dir string) error { return os.Chown(filepath.Dir(filepath.Dir(dir)), 12, 0) }, "/var belongs to user 12"},
		"link": {func(dir string) error {
			return errors.Join(os.Rename(dir, dir+"2"), os.Symlink(filepath.Base(dir)+"2", dir))
		}, "not a folder"},
		"file": {func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) }, "not a folder"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "owner") && os.Geteuid() != 0 {
				t.Skip("only root may give a folder away")
			}
			dir := version1(t, "plain")
			if err := test.spoil(dir + Folder); err != nil {
				t.Fatal(err)
			}
			h := open(t, dir)
			if _, err := Load(h); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error: %v", err)
			}
			j := Salvage(h)
			if len(j.Files)+len(j.Folders) != 0 || len(j.Problems) != 1 || problem.Hint(j.Problems[0]) == "" {
				t.Errorf("%+v", j)
			}
			h.Step = func(op, name string) error { return fmt.Errorf("%s %s", op, name) }
			if err := errors.Join(j.Clean(), j.Save()); err != nil {
				t.Errorf("something was written: %v", err)
			}
			if _, err := j.InPlace(hostfs.InPlace{Real: "/etc/file"}); err == nil {
				t.Error("a record of a write in place")
			}
		})
	}
}

func TestALostOriginalHasAHint(t *testing.T) {
	dir := version1(t, "plain")
	j := load(t, open(t, dir))
	e := j.Find("/etc/docker/daemon.json")
	name := dir + Folder + "/originals/" + e.Original
	for _, test := range []struct {
		what  string
		spoil func() error
	}{
		{"changed", func() error { return os.WriteFile(name, []byte("{}"), 0o600) }},
		{"missing", func() error { return os.Remove(name) }},
		{"folder", func() error { return os.Mkdir(name, 0o755) }},
	} {
		if err := test.spoil(); err != nil {
			t.Fatal(err)
		}
		if data, err := j.Original(e); err == nil || data != nil || problem.Hint(err) == "" {
			t.Errorf("%s: %q, %v", test.what, data, err)
		}
	}
}

func TestAnOriginalThatAFileHoldsAgainIsNotLost(t *testing.T) {
	dir := version1(t, "plain")
	if err := os.WriteFile(dir+Folder+"/journal.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := "testdata/version1/plain/before"
	files := []string{"/etc/docker/daemon.json", "/etc/containerd/config.toml", "/etc/containerd/certs.d/quay.io/hosts.toml"}
	j := Salvage(open(t, dir))
	for i, name := range files {
		if err := j.Save(); err != nil {
			t.Fatal(err)
		}
		if list, err := os.ReadDir(dir + Folder + "/originals"); err != nil || len(list) != len(files) {
			t.Fatalf("after %d: %d originals, %v", i, len(list), err)
		}
		data, err := os.ReadFile(before + name)
		if err != nil {
			t.Fatal(err)
		}
		j.Restored(data)
		j.Restored(nil)
	}
	if err := j.Save(); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(dir + Folder); err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}
