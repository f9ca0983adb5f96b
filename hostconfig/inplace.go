package hostconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"
)

// intent is a write in place that is under way.
type intent struct {
	Real   string `json:"real"`
	Before []byte `json:"before"`
	After  []byte `json:"after"`
}

func (j *journal) intentName() string { return path.Join(j.dir, "in-place.json") }

// intend keeps both contents of a file that is about to be written in place, so
// that [journal.mend] can tell a torn one. The function that it answers with is to be
// called when the file is whole again.
func (j *journal) intend(real string, before, after []byte) (done func() error, err error) {
	if err := j.open(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(intent{real, before, after})
	if err != nil {
		return nil, err
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

// mend undoes a write in place that was killed half-way.
func (j *journal) mend() error {
	f, err := j.tree.read(j.intentName())
	if err != nil || !f.exists() {
		return err
	}
	var in intent
	if err := json.Unmarshal(f.data, &in); err != nil {
		return fmt.Errorf("reading %s: %w", j.intentName(), err)
	}
	dir, err := j.tree.root.Open(local(path.Dir(in.Real)))
	if err == nil {
		defer dir.Close()
		var now []byte
		now, _, err = readAt(dir, path.Base(in.Real), in.Real)
		if err == nil && now != nil && torn(now, in.Before, in.After) && !bytes.Equal(now, in.After) {
			err = j.tree.writeInPlace(dir, path.Base(in.Real), in.Real, in.Before, time.Time{})
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return j.tree.remove(j.intentName(), f.data)
}
