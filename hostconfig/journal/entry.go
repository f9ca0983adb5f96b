package journal

import (
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

// Entry is one real file that holds an entry of sidemirror, by however many names and for however
// many engines.
type Entry struct {
	// Real is the file, symbolic links followed.
	Real string `json:"real"`

	// Path is the name by which the file was found first, and Paths are all of them.
	Path  string   `json:"path"`
	Paths []string `json:"paths,omitempty"`

	// Engine is the one whose wish was carried out first, and Engines are all that want the file.
	Engine  string   `json:"engine"`
	Engines []string `json:"engines,omitempty"`

	Kind string `json:"kind"` // how it is edited
	URL  string `json:"url"`  // the mirror that was written

	Existed  bool         `json:"existed"`
	Original string       `json:"original,omitempty"` // hash of the bytes in originals/
	Attrs    hostfs.Attrs `json:"attrs"`

	// Ours are the hashes of all that was written there or was about to be, since the original: a
	// file with one of these holds nothing of another program's.
	Ours []string `json:"ours"`
}

// IsOurs reports whether data is exactly what sidemirror wrote. It is false for a nil entry.
func (e *Entry) IsOurs(data []byte) bool {
	return e != nil && data != nil && slices.Contains(e.Ours, hostfs.Hash(data))
}

// Wrote adds content that is about to be written to the file.
func (e *Entry) Wrote(data []byte) {
	if data != nil && !e.IsOurs(data) {
		e.Ours = append(e.Ours, hostfs.Hash(data))
	}
}

// claim adds names and engines to those of the entry.
func (e *Entry) claim(engines, paths []string) {
	for _, engine := range engines {
		if !slices.Contains(e.Engines, engine) {
			e.Engines = append(e.Engines, engine)
		}
	}
	for _, name := range paths {
		if !slices.Contains(e.Paths, name) {
			e.Paths = append(e.Paths, name)
		}
	}
}

// complete fills in what version 1 does not have.
func (e *Entry) complete() { e.claim([]string{e.Engine}, []string{e.Path}) }

// check returns an error if no sidemirror writes such an entry. The names of an entry decide what is
// read and written.
func (e *Entry) check() error {
	for _, name := range append([]string{e.Real, e.Path}, e.Paths...) {
		if !path.IsAbs(name) || path.Clean(name) != name || name == "/" || strings.ContainsRune(name, 0) {
			return fmt.Errorf("the name %q is not that of a file", name)
		}
	}
	if sum, err := hex.DecodeString(e.Original); e.Existed && (err != nil || len(sum) != 32) {
		return fmt.Errorf("%s: the original %q is not a hash", e.Real, e.Original)
	}
	if e.Engine == "" || e.Kind == "" {
		return fmt.Errorf("%s: no engine or no kind of file", e.Real)
	}
	if e.Attrs.Mode&^0o7777 != 0 || e.Attrs.UID < 0 || e.Attrs.GID < 0 {
		return fmt.Errorf("%s: mode %o, user %d and group %d cannot be", e.Real, e.Attrs.Mode, e.Attrs.UID, e.Attrs.GID)
	}
	return nil
}

// merge makes one entry of each real file. Up to version 1 there was one for each name, so that a
// file with several names had several originals; the one is right whose content is in the file now.
func merge(h *hostfs.Host, list []*Entry) []*Entry {
	var merged []*Entry
	for _, e := range list {
		e.complete()
		i := slices.IndexFunc(merged, func(other *Entry) bool { return other.Real == e.Real })
		if i < 0 {
			merged = append(merged, e)
			continue
		}
		first := merged[i]
		if first.Original == e.Original && first.Existed == e.Existed {
			first.Ours = append(first.Ours, slices.DeleteFunc(e.Ours, func(sum string) bool { return slices.Contains(first.Ours, sum) })...)
		} else if now, err := h.Read(e.Real); err == nil && e.IsOurs(now.Data) && !first.IsOurs(now.Data) {
			first.Existed, first.Original, first.Attrs, first.Ours, first.URL = e.Existed, e.Original, e.Attrs, e.Ours, e.URL
		}
		first.claim(e.Engines, e.Paths)
	}
	return merged
}

// unknownTime makes the attributes of a file that never was on disk with these bytes.
func unknownTime(at hostfs.Attrs) hostfs.Attrs {
	at.Mtime = time.Time{}
	return at
}
