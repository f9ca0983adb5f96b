package credential

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// watched is a document as it was last read. Look-ups compare the file's stamp, so that a
// corrected file is used from the next pull on (nexus#639).
type watched struct {
	every   time.Duration // one look at the file serves the look-ups in that time
	recent  atomic.Pointer[glance]
	mu      sync.Mutex
	seen    stamp     // the state that was read last, well or not; zero: read again
	content *document // as it was last read well; nil if it never was, or the file was removed since
	fault   error
}

// glance is what a look at a file found, well.
type glance struct {
	document *document
	at       time.Time
}

// noLogins is the content of a file that does not exist.
var noLogins = &document{}

// attempts at a file that is being written to.
const attempts = 3

// lookup uses the last good content also while the file has a problem. If there is none yet it
// returns the error, because the login that is asked for may be there.
func (w *watched) lookup(ctx context.Context, p place, registry, repository string) (Credential, error) {
	doc, err := w.glance(p)
	if err != nil {
		return Credential{}, err
	}
	c, err := doc.find(ctx, p.helpers, registry, repository)
	if err != nil {
		return Credential{}, fmt.Errorf("credential file %s: %w", p.path, err)
	}
	return c, nil
}

// glance returns what is known after a look at the file, now or just before.
func (w *watched) glance(p place) (*document, error) {
	if g := w.recent.Load(); g != nil && time.Since(g.at) < w.every {
		return g.document, nil
	}
	now := time.Now()
	doc, err := w.current(p)
	if err != nil || w.every == 0 {
		return doc, err
	}
	w.recent.Store(&glance{doc, now})
	return doc, nil
}

// current returns what is known after a look at the file.
func (w *watched) current(p place) (*document, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refresh(p)
	switch {
	case w.content != nil:
		return w.content, nil
	case errors.Is(w.fault, fs.ErrNotExist):
		return noLogins, nil
	}
	return nil, w.fault
}

// trouble returns what is wrong with the file now, including the entries that are of no use.
func (w *watched) trouble(p place) error {
	w.mu.Lock()
	w.refresh(p)
	doc, fault := w.content, w.fault
	w.mu.Unlock()
	if fault != nil {
		return fault
	}
	var problems []error
	for _, err := range doc.problems(p.helpers) {
		problems = append(problems, fmt.Errorf("credential file %s: %w", p.path, err))
	}
	return errors.Join(problems...)
}

func (w *watched) refresh(p place) {
	info, err := os.Stat(p.path)
	if err == nil && stampOf(info) == w.seen {
		return
	}
	if errors.Is(err, fs.ErrNotExist) && errors.Is(w.fault, fs.ErrNotExist) {
		return // still not there, as a store mostly is
	}
	now := time.Now()
	doc, at, err := p.load()
	if !at.settled(now) {
		at = stamp{}
	}
	w.seen = at
	switch {
	case err == nil:
		w.content, w.fault = doc, nil
	case errors.Is(err, fs.ErrNotExist):
		// It was removed, and the logins with it. What appears here next must be read well once
		// before a request goes without its login.
		w.content = nil
		w.fault = fmt.Errorf("credential file: %w", err)
	default:
		w.fault = fmt.Errorf("credential file %s: %w", p.path, err)
	}
}

// load reads and parses, again if the file is being written to. The stamp is zero if the next
// look-up must try again.
func (p place) load() (doc *document, at stamp, err error) {
	for range attempts {
		data, state, err := p.read()
		if errors.Is(err, errBeingWritten) {
			continue
		}
		if state != nil {
			at = stampOf(state)
		}
		if err != nil {
			return nil, at, err
		}
		doc, err := parseDocument(p.kind, data)
		if err != nil {
			return nil, at, err
		}
		if mode := state.Mode().Perm(); mode&0o004 != 0 && doc.hasSecrets() {
			return nil, at, fmt.Errorf("it holds secrets and every user may read it (mode %04o): chmod o-r %s", mode, p.path)
		}
		return doc, at, nil
	}
	return nil, stamp{}, errBeingWritten
}
