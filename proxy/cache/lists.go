package cache

import (
	"fmt"
	"path"
	"time"

	"github.com/opencontainers/go-digest"
)

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
	return d.writeRecord(answerPath(r, key), a)
}

func answerPath(r Repository, key string) string {
	return path.Join(r.folder(), "_answers", digest.FromString(key).Encoded())
}
