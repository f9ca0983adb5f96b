// Package journal records what a host's files held before sidemirror changed them.
//
// The journal is on disk before the first edit that it tells of, and is removed with the last one.
// Next to journal.json the folder originals/ has the bytes themselves, so that a person can
// restore a file with cp if sidemirror cannot.
package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Folder is where the journal is. It is a folder of root's own, not one below /var/lib/sidemirror:
// that belongs to the proxy's user, who could put another journal in its place and have revert
// write anything anywhere.
const Folder = "/var/lib/sidemirror-hosts"

const version = 1

// Journal is what was there before sidemirror.
type Journal struct {
	host *hostfs.Host
	dir  string // Folder, symbolic links above it followed

	Version int `json:"version"`

	// Own are the folders that were made for the journal itself, outermost first.
	Own []string `json:"own_folders"`

	// Named are the engines that were configured because they were named, found or not.
	Named []string `json:"named,omitempty"`

	// Folders are those that were made, or were about to be, for the engines' files.
	Folders []string `json:"folders"`

	Files []*Entry `json:"files"`
}

// Entry is one file of an engine.
type Entry struct {
	Engine string `json:"engine"`
	Kind   string `json:"kind"`           // how it is edited
	Path   string `json:"path"`           // as the engine names it
	Real   string `json:"real"`           // what that was, symbolic links followed
	Link   string `json:"link,omitempty"` // the target, if Path is a symbolic link itself
	URL    string `json:"url"`            // the mirror that was written

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

// Edit is a change that is about to be made to a file.
type Edit struct {
	Engine, Kind, Path, URL string

	// Base is the file without sidemirror's entry; nil if there would be none.
	Base []byte

	// Contents are all that is going to be written there.
	Contents [][]byte
}

// Load reads the journal; if there is none it is empty.
func Load(h *hostfs.Host) (*Journal, error) {
	j := &Journal{host: h, Version: version}
	var err error
	if j.dir, err = private(h, Folder); err != nil {
		return nil, err
	}
	if err := j.readInPlace(); err != nil {
		return nil, err
	}
	f, err := h.Read(j.name())
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	if !f.Exists() {
		return j, nil
	}
	if err := json.Unmarshal(f.Data, j); err != nil {
		return nil, &problem.Problem{Code: "journal-damaged", Path: j.name(), Text: "damaged journal", Err: err,
			Hint: "restore the files by hand from " + j.originals() + ", then remove " + j.dir}
	}
	if j.Version != version {
		return nil, &problem.Problem{Code: "journal-version", Path: j.name(), Text: fmt.Sprintf("journal of version %d, which this sidemirror does not know", j.Version),
			Hint: "use the sidemirror that wrote it"}
	}
	return j, nil
}

func (j *Journal) name() string      { return j.dir + "/journal.json" }
func (j *Journal) originals() string { return j.dir + "/originals" }

// Find returns the entry of a file, or nil.
func (j *Journal) Find(name string) *Entry {
	for _, e := range j.Files {
		if e.Path == name {
			return e
		}
	}
	return nil
}

// Drop removes the entry of a file.
func (j *Journal) Drop(name string) {
	j.Files = slices.DeleteFunc(j.Files, func(e *Entry) bool { return e.Path == name })
}

// KeepNamed adds engines to Named if they have files, and reports whether that changed anything.
func (j *Journal) KeepNamed(more []string) (changed bool) {
	before := j.Named
	j.Named = nil
	for _, engine := range slices.Concat(before, more) {
		has := slices.ContainsFunc(j.Files, func(e *Entry) bool { return e.Engine == engine })
		if has && !slices.Contains(j.Named, engine) {
			j.Named = append(j.Named, engine)
		}
	}
	return !slices.Equal(before, j.Named)
}

// Original returns what e's file held before sidemirror; nil if there was no file.
func (j *Journal) Original(e *Entry) ([]byte, error) {
	if !e.Existed {
		return nil, nil
	}
	name := j.originals() + "/" + e.Original
	f, err := j.host.Read(name)
	if err != nil {
		return nil, err
	}
	if !f.Exists() || hostfs.Hash(f.Data) != e.Original {
		return nil, &problem.Problem{Code: "original-lost", Path: name,
			Text: "missing or damaged, so that " + problem.QuotePath(e.Path) + " cannot be restored from it",
			Hint: "take sidemirror's entry out of " + problem.QuotePath(e.Path) + " by hand"}
	}
	return f.Data, nil
}

// Record notes that an edit is about to be made. If the file holds something of other programs'
// that the journal has not seen, that becomes the original.
func (j *Journal) Record(edit Edit, now hostfs.File) error {
	e := j.Find(edit.Path)
	if !e.IsOurs(now.Data) {
		at := now.Attrs
		if !bytes.Equal(edit.Base, now.Data) {
			at.Mtime = time.Time{} // base never was on disk like this
		}
		e = &Entry{Engine: edit.Engine, Kind: edit.Kind, Path: edit.Path, Existed: edit.Base != nil, Attrs: at}
		if e.Existed {
			e.Original = hostfs.Hash(edit.Base)
			if err := j.retain(e.Original, edit.Base); err != nil {
				return err
			}
		}
		j.Drop(edit.Path)
		j.Files = append(j.Files, e)
	}
	e.Real, e.URL = now.Real, edit.URL
	if link := j.host.Readlink(edit.Path); link != "" {
		e.Link = link
	}
	for _, data := range edit.Contents {
		e.Wrote(data)
	}
	for _, dir := range j.host.Missing(now.Real) {
		if !slices.Contains(j.Folders, dir) {
			j.Folders = append(j.Folders, dir)
		}
	}
	return nil
}

// retain writes an original, once.
func (j *Journal) retain(name string, data []byte) error {
	if err := j.open(); err != nil {
		return err
	}
	if err := j.host.MakeFolder(j.originals(), 0o700); err != nil {
		return err
	}
	real := j.originals() + "/" + name
	f, err := j.host.Read(real)
	if err != nil || bytes.Equal(f.Data, data) && f.Exists() {
		return err
	}
	return j.host.Write(real, f.Data, data, ownAttrs())
}

// Save writes the journal, or removes it if nothing is left to restore.
func (j *Journal) Save() error {
	if len(j.Files) == 0 && len(j.Folders) == 0 {
		return j.close()
	}
	if err := j.open(); err != nil {
		return err
	}
	f, err := j.host.Read(j.name())
	if err != nil {
		return err
	}
	data, err := j.encode()
	if err != nil || bytes.Equal(data, f.Data) {
		return err
	}
	if err := j.host.Write(j.name(), f.Data, data, ownAttrs()); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return j.prune()
}

func (j *Journal) encode() ([]byte, error) {
	data, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the journal: %w", err)
	}
	return append(data, '\n'), nil
}

// prune removes originals that no entry names any more.
func (j *Journal) prune() error {
	list, err := j.host.Names(j.originals())
	if err != nil {
		return err
	}
	for _, item := range list {
		used := slices.ContainsFunc(j.Files, func(e *Entry) bool { return e.Original == item.Name() })
		if used {
			continue
		}
		if err := j.host.RemoveAll(j.originals() + "/" + item.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func ownAttrs() hostfs.Attrs {
	return hostfs.Attrs{Mode: 0o600, UID: unix.Geteuid(), GID: unix.Getegid()}
}
