package journal

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

// Whatever is in journal.json, what is read names files by clean absolute paths, and without a
// problem it is written and read as the same again.
func FuzzJournal(f *testing.F) {
	for _, name := range []string{"plain", "farm"} {
		text, err := os.ReadFile("testdata/version1/" + name + "/after" + Folder + "/journal.json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		f.Add([]byte(strings.Replace(string(text), `"version": 1`, `"version": 2`, 1)))
		f.Add([]byte(strings.Replace(string(text), `"version": 1`, `"version": 3, "new": {}`, 1)))
		f.Add(text[:len(text)/2])
	}
	f.Add([]byte(`{"version":2,"files":[null,{"real":"/a","path":"/a","paths":["/b"],"engine":"e","engines":["f"],"kind":"k"}]}`))
	h := open(f, f.TempDir())
	parse := func(data []byte) *Journal {
		j := &Journal{host: h, dir: Folder, Version: version}
		j.parse(data)
		j.Files = merge(h, j.Files)
		return j
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		j := parse(data)
		for _, e := range j.Files {
			if err := e.check(); err != nil {
				t.Errorf("an entry that should be refused: %v", err)
			}
		}
		if len(j.Problems) > 0 {
			return
		}
		text, err := j.encode()
		if err != nil {
			t.Fatal(err)
		}
		if again := parse(text); len(again.Problems) > 0 || !reflect.DeepEqual(again.Files, j.Files) {
			t.Errorf("%s was written as %s and read as %+v: %v", data, text, again.Files, errors.Join(again.Problems...))
		}
	})
}

// Whatever is in in-place.json, a file is repaired only if it is what such a write leaves behind.
func FuzzInPlace(f *testing.F) {
	seed, err := json.Marshal(hostfs.InPlace{Real: "/file", Before: []byte("before"), After: []byte("after")})
	if err != nil {
		f.Fatal(err)
	}
	for _, now := range []string{"before", "after", "aftere", "theirs", ""} {
		f.Add(seed, now)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte, now string) {
		put(t, dir, map[string]string{"file": now})
		h, err := hostfs.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		j := &Journal{host: h}
		w, err := parseInPlace(data)
		if err != nil {
			return
		}
		h.Torn = w
		if err := j.host.Repair(); err != nil {
			return
		}
		got, err := os.ReadFile(dir + "/file")
		if err != nil {
			t.Fatal(err)
		}
		if string(got) == now {
			return
		}
		whole := strings.HasPrefix(string(w.After), now) || strings.HasSuffix(now, string(w.Before)) || len(now) == max(len(w.Before), len(w.After)) || len(now) == len(w.Before)
		if string(got) != string(w.Before) || w.Real != "/file" || !whole {
			t.Errorf("%q became %q by %s", now, got, data)
		}
	})
}
