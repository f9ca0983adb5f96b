package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Load reads the journal; if there is none it is empty. It fails if the journal is not whole. Use
// it before files are changed; [Salvage] is for taking entries out again.
func Load(h *hostfs.Host) (*Journal, error) {
	j := Salvage(h)
	if len(j.Problems) > 0 {
		return nil, errors.Join(j.Problems...)
	}
	return j, nil
}

// Salvage reads of the journal what can be read, and lists in Problems what cannot, with a hint.
// What a journal in a folder of another user says is not obeyed: it counts as lost.
//
// Such a journal is not written anew, so that what the rest of it tells is not lost; see
// [Journal.Save].
func Salvage(h *hostfs.Host) *Journal {
	j := &Journal{host: h, Version: version}
	var err error
	if j.dir, err = private(h, Folder); err != nil {
		j.Problems = append(j.Problems, err)
		j.closed = true
		return j
	}
	if err := j.readInPlace(); err != nil {
		j.Problems = append(j.Problems, err)
		j.partial, j.unknown = true, true
	}
	f, err := h.Read(j.name())
	if err != nil {
		j.Problems = append(j.Problems, fmt.Errorf("reading the journal: %w", err))
		j.partial, j.unknown = true, true
		return j
	}
	if f.Exists() {
		j.parse(f.Data)
	}
	j.Files = merge(h, j.Files)
	if j.partial {
		j.findLost()
	}
	return j
}

// Hidden reports whether all that is wrong with the journal is that it is root's, and this user is
// not root.
func (j *Journal) Hidden() bool {
	return len(j.Problems) == 1 && problem.Coded(j.Problems[0], "").Code == rootOnly
}

// parse reads journal.json, as far as it is whole.
func (j *Journal) parse(data []byte) {
	var head struct {
		Version int `json:"version"`
	}
	_ = json.Unmarshal(data, &head) // what is wrong is reported below
	err := decode(data, j)
	switch {
	case head.Version > version:
		j.partial, j.unknown = true, err != nil
		j.Problems = append(j.Problems, &problem.Problem{Code: "journal-version", Path: j.name(),
			Text: fmt.Sprintf("journal of version %d, which a newer sidemirror wrote", head.Version), Err: err,
			Hint: "use that sidemirror, or run sidemirror revert, which takes out what this one knows"})
	case err == nil && head.Version < 1:
		err = fmt.Errorf("it is of version %d", head.Version)
		fallthrough
	case err != nil:
		j.partial = true
		j.Problems = append(j.Problems, &problem.Problem{Code: "journal-damaged", Path: j.name(), Text: "damaged journal", Err: err,
			Hint: "run sidemirror revert, which goes by what it can read and by the marks in the files"})
	}
	if err != nil {
		j.salvage(data)
	}
	j.Version = version
	j.Files = slices.DeleteFunc(j.Files, func(e *Entry) bool {
		err := e.check()
		if err != nil {
			j.partial, j.unknown = true, true
			j.Problems = append(j.Problems, &problem.Problem{Code: "journal-damaged", Path: j.name(), Text: "entry that no sidemirror writes", Err: err,
				Hint: "run sidemirror revert, which goes by the other entries and by the marks in the files; then remove " + problem.QuotePath(j.dir)})
		}
		return err != nil
	})
}

// decode reads a journal all of which is known.
func decode(data []byte, j *Journal) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	var found struct {
		Journal
		Files []struct {
			Entry
			Link string `json:"link"` // of version 1: the target of Path
		} `json:"files"`
	}
	found.Journal.Version = 0
	dec.DisallowUnknownFields()
	if err := dec.Decode(&found); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after it")
	}
	j.Version, j.Own, j.Named, j.Folders = found.Version, found.Own, found.Named, found.Folders
	j.AllowUnprivilegedPort = found.AllowUnprivilegedPort
	for _, e := range found.Files {
		j.Files = append(j.Files, &e.Entry)
	}
	return nil
}

// salvage reads the members of a journal one by one, up to the first that is damaged.
func (j *Journal) salvage(data []byte) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return
		}
		switch key {
		case "own_folders":
			err = dec.Decode(&j.Own)
		case "named":
			err = dec.Decode(&j.Named)
		case "folders":
			err = dec.Decode(&j.Folders)
		case "allow_unprivileged_port":
			err = dec.Decode(&j.AllowUnprivilegedPort)
		case "files":
			err = j.salvageFiles(dec)
		default:
			err = dec.Decode(new(json.RawMessage))
		}
		if err != nil {
			return
		}
	}
}

func (j *Journal) salvageFiles(dec *json.Decoder) error {
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return errors.New("not a list")
	}
	for dec.More() {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return err
		}
		e := new(Entry)
		if json.Unmarshal(raw, e) == nil {
			j.Files = append(j.Files, e)
		}
	}
	_, err := dec.Token()
	return err
}

// findLost reports originals that no entry names: the part of the journal that told of them is lost.
func (j *Journal) findLost() {
	list, err := j.host.Names(j.originals())
	if err != nil {
		j.Problems = append(j.Problems, err)
		return
	}
	for _, item := range list {
		if !j.uses(item.Name()) {
			j.lost = append(j.lost, item.Name())
			j.Problems = append(j.Problems, &problem.Problem{Code: "original-unknown", Path: j.originals() + "/" + item.Name(),
				Text: "original of a file that the rest of the journal does not name",
				Hint: "compare it with the engines' files, restore it by hand if it is missing there, then remove " + problem.QuotePath(j.dir)})
		}
	}
}
