package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/internal/problem"
)

func (j *Journal) inPlaceName() string { return j.dir + "/in-place.json" }

// InPlace stores both contents of a file that is about to be written in place, so that the next
// run can tell a torn one. It is for [hostfs.Host].
func (j *Journal) InPlace(w hostfs.InPlace) (done func() error, err error) {
	if j.closed {
		return nil, &problem.Problem{Code: "journal-not-private", Path: w.Real, Text: "a mount of its own, and not written in place without a journal", Err: errors.Join(j.Problems...)}
	}
	if err := j.open(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	if len(data) > hostfs.MaxFile {
		return nil, &problem.Problem{Code: "file-too-large", Path: w.Real, Text: "a mount of its own and too large to be written in place", Hint: "make it smaller, or mount its folder"}
	}
	now, err := j.host.Read(j.inPlaceName())
	if err != nil {
		return nil, err
	}
	if err := j.host.Write(j.inPlaceName(), now.Data, data, ownAttrs()); err != nil {
		return nil, err
	}
	return func() error { return j.host.Remove(j.inPlaceName(), data) }, nil
}

// readInPlace finds a write in place that did not come to its end.
func (j *Journal) readInPlace() error {
	f, err := j.host.Read(j.inPlaceName())
	if err != nil || !f.Exists() {
		return err
	}
	w, err := parseInPlace(f.Data)
	if err != nil {
		return &problem.Problem{Code: "journal-damaged", Path: j.inPlaceName(), Text: "damaged record of a write in place", Err: err,
			Hint: "check that the file that it names is whole, then remove the record"}
	}
	j.host.Torn = w
	return nil
}

func parseInPlace(data []byte) (*hostfs.InPlace, error) {
	w := new(hostfs.InPlace)
	if err := json.Unmarshal(data, w); err != nil {
		return nil, err
	}
	if !path.IsAbs(w.Real) || path.Clean(w.Real) != w.Real {
		return nil, fmt.Errorf("the name %q is not that of a file", w.Real)
	}
	return w, nil
}

// repair undoes a write in place that was killed halfway.
func (j *Journal) repair() error {
	if j.host.Torn == nil {
		return nil
	}
	if err := j.host.Repair(); err != nil {
		return err
	}
	f, err := j.host.Read(j.inPlaceName())
	if err != nil || !f.Exists() {
		return err
	}
	return j.host.Remove(j.inPlaceName(), f.Data)
}
