package cache

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// maxLists is how many lists of one repository are stored: there may be as many pages as a
// client cares to ask for.
const maxLists = 16

// Answer is a list of tags or referrers as an upstream last sent it.
type Answer struct {
	Body    []byte            `json:"body"`
	Header  map[string]string `json:"header"`
	Warning string            `json:"warning,omitempty"` // of the upstream for the client
	Seen    time.Time         `json:"seen"`
	Learned
}

// Answer returns what SetAnswer stored under key, which is any text.
func (d *Dir) Answer(r Repository, key string) (*Answer, error) {
	var a Answer
	if err := d.readFile(answerPath(r, key), 2*maxAnswer, &a); err != nil {
		return nil, err
	}
	return &a, nil
}

// SetAnswer stores a list for when its upstream is away.
func (d *Dir) SetAnswer(r Repository, key string, a Answer) error {
	if len(a.Body) > maxAnswer {
		return fmt.Errorf("a list of %d bytes is not stored", len(a.Body))
	}
	if err := d.writeRecord(answerPath(r, key), a, a.Untrusted); err != nil {
		return err
	}
	return d.boundLists(r)
}

// boundLists removes the oldest lists of a repository that has more than maxLists.
func (d *Dir) boundLists(r Repository) error {
	folder := path.Join(r.folder(), string(KindList))
	entries, err := fs.ReadDir(d.root.FS(), folder)
	if err != nil || len(entries) <= maxLists {
		return err
	}
	written := make(map[string]time.Time, len(entries))
	for _, e := range entries {
		// A time that is still to come says nothing, and counts as long ago.
		if info, err := e.Info(); err == nil && isPast(info.ModTime()) {
			written[e.Name()] = info.ModTime()
		}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return written[a.Name()].Compare(written[b.Name()]) })
	for _, e := range entries[:len(entries)-maxLists] {
		if err := ignoreMissing(d.root.Remove(path.Join(folder, e.Name()))); err != nil {
			return err
		}
	}
	return nil
}

func answerPath(r Repository, key string) string {
	return path.Join(r.folder(), "_answers", digest.FromString(key).Encoded())
}
