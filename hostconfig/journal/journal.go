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
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Folder is where the journal is. It belongs to root, and is not below /var/lib/sidemirror:
// that belongs to the proxy's user, who could put another journal in its place and have revert
// write anything anywhere.
const Folder = "/var/lib/sidemirror-hosts"

// version is that of the journal's format. Version 1 had an entry for each name of a file, version 2
// has one for each real file.
const version = 2

// Journal is what was there before sidemirror.
type Journal struct {
	host *hostfs.Host
	dir  string // Folder, symbolic links above it followed

	// closed says that the journal's folder must not be read or written. partial says that the
	// journal cannot be written anew, and unknown that it may tell of more than was read. lost are
	// the originals that nothing read of it names.
	closed, partial, unknown bool
	lost                     []string

	// Problems are what could not be read of the journal; see [Salvage].
	Problems []error `json:"-"`

	Version int `json:"version"`

	// Own are the folders that were made for the journal itself, outermost first.
	Own []string `json:"own_folders"`

	// Named are the engines that were configured because they were named, found or not.
	Named []string `json:"named,omitempty"`

	// AllowUnprivilegedPort says that a port was allowed that any user can take.
	AllowUnprivilegedPort bool `json:"allow_unprivileged_port,omitempty"`

	// Folders are those that were made, or were about to be, for the engines' files.
	Folders []string `json:"folders"`

	Files []*Entry `json:"files"`
}

// Edit is a change that is about to be made to a file.
type Edit struct {
	Engine, Kind, Path, URL string

	// Engines and Paths are further ones that the edit is for, if any.
	Engines, Paths []string

	// Base is the file without sidemirror's entry; nil if there would be none.
	Base []byte

	// Contents are all that is going to be written there.
	Contents [][]byte
}

func (j *Journal) name() string      { return j.dir + "/journal.json" }
func (j *Journal) originals() string { return j.dir + "/originals" }

// Find returns the entry of the real file that name stands for, or nil.
func (j *Journal) Find(name string) *Entry {
	real, err := j.host.Follow(name)
	if err != nil {
		real = name
	}
	return j.find(real)
}

func (j *Journal) find(real string) *Entry {
	for _, e := range j.Files {
		if e.Real == real {
			return e
		}
	}
	return nil
}

// Drop removes the entry of a real file.
func (j *Journal) Drop(real string) {
	j.Files = slices.DeleteFunc(j.Files, func(e *Entry) bool { return e.Real == real })
}

// KeepNamed adds engines to Named if they have files, and reports whether that changed anything.
func (j *Journal) KeepNamed(more []string) (changed bool) {
	before := j.Named
	j.Named = nil
	for _, engine := range slices.Concat(before, more) {
		has := slices.ContainsFunc(j.Files, func(e *Entry) bool { return slices.Contains(e.Engines, engine) })
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

// Record notes that an edit is about to be made to the file that was read as now. If the file holds
// something of other programs' that the journal has not seen, that becomes the original.
func (j *Journal) Record(edit Edit, now hostfs.File) error {
	if j.closed || j.partial {
		return errors.Join(j.Problems...)
	}
	e := j.find(now.Real)
	if !e.IsOurs(now.Data) {
		at := now.Attrs
		if !bytes.Equal(edit.Base, now.Data) {
			at = unknownTime(at)
		}
		fresh := &Entry{Engine: edit.Engine, Kind: edit.Kind, Path: edit.Path, Real: now.Real, Existed: edit.Base != nil, Attrs: at}
		if fresh.Existed {
			fresh.Original = hostfs.Hash(edit.Base)
			if err := j.retain(fresh.Original, edit.Base); err != nil {
				return err
			}
		}
		if e != nil {
			fresh.claim(e.Engines, e.Paths)
		}
		j.Drop(now.Real)
		j.Files = append(j.Files, fresh)
		e = fresh
	}
	e.URL = edit.URL
	e.complete()
	e.claim(append([]string{edit.Engine}, edit.Engines...), append([]string{edit.Path}, edit.Paths...))
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

// Save writes the journal, or removes it if nothing is left to restore. A journal that was not
// understood as a whole stays as it is, for a person or another version to look at; so does one in a
// folder that another user could have written.
func (j *Journal) Save() error {
	empty := len(j.Files) == 0 && len(j.Folders) == 0
	switch {
	case j.closed || j.unknown || len(j.lost) > 0 || j.partial && !empty:
		return nil
	case empty:
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
	if j.partial {
		return nil
	}
	list, err := j.host.Names(j.originals())
	if err != nil {
		return err
	}
	for _, item := range list {
		if j.uses(item.Name()) {
			continue
		}
		if err := j.host.RemoveAll(j.originals() + "/" + item.Name()); err != nil {
			return err
		}
	}
	return nil
}

// Restored notes what a file holds again. An original with that content is not lost, even if the
// part of the journal that named it is.
func (j *Journal) Restored(data []byte) {
	if data != nil {
		sum := hostfs.Hash(data)
		j.lost = slices.DeleteFunc(j.lost, func(original string) bool { return original == sum })
	}
}

// Recovered reports whether a damaged journal has nothing left to tell: all entries are taken out,
// and every original is accounted for.
func (j *Journal) Recovered() bool {
	settled := !j.closed && !j.unknown && len(j.lost) == 0
	return settled && len(j.Problems) > 0 && len(j.Files) == 0 && len(j.Folders) == 0
}

// uses reports whether an entry names an original.
func (j *Journal) uses(original string) bool {
	return slices.ContainsFunc(j.Files, func(e *Entry) bool { return e.Original == original })
}

func ownAttrs() hostfs.Attrs {
	return hostfs.Attrs{Mode: 0o600, UID: unix.Geteuid(), GID: unix.Getegid()}
}
