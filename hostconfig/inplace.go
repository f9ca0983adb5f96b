package hostconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"path"
	"time"
)

// intent is a write in place that is under way.
type intent struct {
	Real   string    `json:"real"`
	Mtime  time.Time `json:"mtime"` // of Before
	Before []byte    `json:"before"`
	After  []byte    `json:"after"`
}

func (j *journal) intentName() string { return path.Join(j.dir, "in-place.json") }

// intend keeps both contents of a file that is about to be written in place, so
// that [journal.mend] can tell a torn one. The function that it answers with is to be
// called when the file is whole again.
func (j *journal) intend(in intent) (done func() error, err error) {
	if err := j.open(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, &refusal{path: in.Real, reason: "is a mount of its own and too large to be written in place", mend: "make it smaller, or mount its folder"}
	}
	now, err := j.tree.read(j.intentName())
	if err != nil {
		return nil, err
	}
	if err := j.tree.write(j.intentName(), now.data, data, ownAttrs()); err != nil {
		return nil, err
	}
	return func() error { return j.tree.remove(j.intentName(), data) }, nil
}

// readIntent finds a write in place that did not come to its end.
func (j *journal) readIntent() error {
	f, err := j.tree.read(j.intentName())
	if err != nil || !f.exists() {
		return err
	}
	in := new(intent)
	if err := json.Unmarshal(f.data, in); err != nil {
		return &refusal{path: j.intentName(), reason: "is damaged: " + err.Error(), mend: "see that the file that it names is whole, then remove it"}
	}
	j.tree.pending = in
	return nil
}

// mend undoes a write in place that was killed half-way.
func (j *journal) mend() error {
	in := j.tree.pending
	if in == nil {
		return nil
	}
	was, err := j.tree.read(in.Real)
	if err != nil {
		return err
	}
	if dir, err := j.tree.root.Open(local(path.Dir(in.Real))); err == nil {
		defer dir.Close()
		now, _, err := readAt(dir, path.Base(in.Real), in.Real)
		if err == nil && now != nil && !bytes.Equal(now, was.data) {
			err = j.tree.writeInPlace(dir, path.Base(in.Real), in.Real, in.Before, in.Mtime)
		}
		if err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return explain(in.Real, "opening the folder of", err)
	}
	j.tree.pending = nil
	f, err := j.tree.read(j.intentName())
	if err != nil || !f.exists() {
		return err
	}
	return j.tree.remove(j.intentName(), f.data)
}
