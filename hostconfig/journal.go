package hostconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// The journal is what was there before us. It is on disk before the first edit
// that it tells of, and away with the last one. Beside journal.json the folder
// originals/ has the bytes themselves, so that a person can give a file
// back with cp where we cannot.
const (
	// journalFolder is a folder of root's own, not one below /var/lib/sidemirror: that
	// belongs to the proxy's user, who could put another journal in the place of ours and
	// have revert write anything anywhere.
	journalFolder  = "/var/lib/sidemirror-hosts"
	journalVersion = 1
)

type journal struct {
	tree *tree
	dir  string // journalFolder, symbolic links above it followed

	Version int `json:"version"`

	// Own are the folders that were made for the journal itself, outermost first.
	Own []string `json:"own_folders"`

	// Named are the engines that were configured because they were named, found or not.
	Named []string `json:"named,omitempty"`

	// Folders are those that were made, or were about to be, for the engines' files.
	Folders []string `json:"folders"`

	Files []*entry `json:"files"`
}

// entry is one file of an engine.
type entry struct {
	Engine string `json:"engine"`
	Kind   kind   `json:"kind"`
	Path   string `json:"path"`           // as the engine names it
	Real   string `json:"real"`           // what that was, symbolic links followed
	Link   string `json:"link,omitempty"` // the target, where Path is a symbolic link itself
	URL    string `json:"url"`            // the mirror that was written

	Existed  bool   `json:"existed"`
	Original string `json:"original,omitempty"` // hash of the bytes in originals/
	Attrs    attrs  `json:"attrs"`

	// Ours are the hashes of all that Apply wrote there or was about to, since the
	// original: a file with one of these has nothing of anybody else's in it.
	Ours []string `json:"ours"`
}

func (e *entry) isOurs(data []byte) bool {
	return e != nil && data != nil && slices.Contains(e.Ours, hash(data))
}

// loadJournal reads the journal; where there is none it is empty.
func loadJournal(t *tree) (*journal, error) {
	dir, err := t.private(journalFolder)
	if err != nil {
		return nil, err
	}
	j := &journal{tree: t, dir: dir, Version: journalVersion}
	if err := j.readIntent(); err != nil {
		return nil, err
	}
	f, err := t.read(j.name())
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	if !f.exists() {
		return j, nil
	}
	if err := json.Unmarshal(f.data, j); err != nil {
		return nil, &refusal{path: j.name(), reason: "is damaged: " + err.Error(),
			mend: "give the files back by hand from " + j.originals() + ", then remove " + dir}
	}
	if j.Version != journalVersion {
		return nil, &refusal{path: j.name(), reason: fmt.Sprintf("is of version %d, which this sidemirror does not know", j.Version),
			mend: "use the sidemirror that wrote it"}
	}
	return j, nil
}

func (j *journal) name() string      { return j.dir + "/journal.json" }
func (j *journal) originals() string { return j.dir + "/originals" }

func (j *journal) find(name string) *entry {
	for _, e := range j.Files {
		if e.Path == name {
			return e
		}
	}
	return nil
}

func (j *journal) drop(name string) {
	j.Files = slices.DeleteFunc(j.Files, func(e *entry) bool { return e.Path == name })
}

// keepNamed adds engines to Named, as far as they have files, and reports whether that is new.
func (j *journal) keepNamed(more []string) (changed bool) {
	before := j.Named
	j.Named = nil
	for _, engine := range slices.Concat(before, more) {
		has := slices.ContainsFunc(j.Files, func(e *entry) bool { return e.Engine == engine })
		if has && !slices.Contains(j.Named, engine) {
			j.Named = append(j.Named, engine)
		}
	}
	return !slices.Equal(before, j.Named)
}

// original is what e's file held before us; nil where there was no file.
func (j *journal) original(e *entry) ([]byte, error) {
	if !e.Existed {
		return nil, nil
	}
	name := j.originals() + "/" + e.Original
	f, err := j.tree.read(name)
	if err != nil {
		return nil, err
	}
	if !f.exists() || hash(f.data) != e.Original {
		return nil, &refusal{path: name, reason: "is missing or damaged, so that " + e.Path + " cannot be given back from it",
			mend: "take sidemirror's part out of " + e.Path + " by hand"}
	}
	return f.data, nil
}

// record notes that c is about to be made. Where the file has something of
// others' in it that the journal has not seen, that becomes the original.
func (j *journal) record(c *Change, now file) error {
	e := j.find(c.Path)
	if !e.isOurs(now.data) {
		at := now.attrs
		if !bytes.Equal(c.base, now.data) {
			at.Mtime = time.Time{} // base never was on disk like this
		}
		e = &entry{Engine: c.Engine, Kind: c.kind, Path: c.Path, Existed: c.base != nil, Attrs: at}
		if e.Existed {
			e.Original = hash(c.base)
			if err := j.keep(e.Original, c.base); err != nil {
				return err
			}
		}
		j.drop(c.Path)
		j.Files = append(j.Files, e)
	}
	e.Real, e.URL = now.real, c.url
	if link, err := j.tree.root.Readlink(local(c.Path)); err == nil {
		e.Link = link
	}
	for _, data := range [][]byte{c.After, c.interim} {
		if data != nil && !e.isOurs(data) {
			e.Ours = append(e.Ours, hash(data))
		}
	}
	for _, dir := range j.tree.missing(now.real) {
		if !slices.Contains(j.Folders, dir) {
			j.Folders = append(j.Folders, dir)
		}
	}
	return nil
}

// keep writes an original, once.
func (j *journal) keep(name string, data []byte) error {
	if err := j.open(); err != nil {
		return err
	}
	if err := j.tree.makeFolder(j.originals(), 0o700); err != nil {
		return err
	}
	real := j.originals() + "/" + name
	f, err := j.tree.read(real)
	if err != nil || bytes.Equal(f.data, data) && f.exists() {
		return err
	}
	return j.tree.write(real, f.data, data, ownAttrs())
}

// save writes the journal, or removes it where nothing is left to give back.
func (j *journal) save() error {
	if len(j.Files) == 0 && len(j.Folders) == 0 {
		return j.close()
	}
	if err := j.open(); err != nil {
		return err
	}
	f, err := j.tree.read(j.name())
	if err != nil {
		return err
	}
	data, err := j.encode()
	if err != nil || bytes.Equal(data, f.data) {
		return err
	}
	if err := j.tree.write(j.name(), f.data, data, ownAttrs()); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return j.prune()
}

func (j *journal) encode() ([]byte, error) {
	data, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the journal: %w", err)
	}
	return append(data, '\n'), nil
}

// prune removes originals that no entry names any more.
func (j *journal) prune() error {
	list, err := j.tree.names(j.originals())
	if err != nil {
		return err
	}
	for _, item := range list {
		used := slices.ContainsFunc(j.Files, func(e *entry) bool { return e.Original == item.Name() })
		if used {
			continue
		}
		if err := j.tree.root.Remove(local(j.originals() + "/" + item.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return explain(item.Name(), "removing the original", err)
		}
	}
	return nil
}

func ownAttrs() attrs {
	return attrs{Mode: 0o600, UID: unix.Geteuid(), GID: unix.Getegid()}
}
