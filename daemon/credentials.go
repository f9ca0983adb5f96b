package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

// credentials gives the sources that c names, in their order. log may be nil.
func credentials(c *config.Config, log *logrus.Logger) []*toldSource {
	sources := []*toldSource{told(credential.OpenStore(c.Credentials.Store), log, lookForFaults)}
	for _, path := range c.Credentials.Files {
		sources = append(sources, told(&credential.File{Path: path}, log, lookForFaults))
	}
	return sources
}

// asked are sources as the proxy wants them.
func asked(sources []*toldSource) credential.Sources {
	list := make(credential.Sources, len(sources))
	for i, s := range sources {
		list[i] = s
	}
	return list
}

// faulty is a source that may be in trouble while it still serves what it last read.
type faulty interface {
	credential.Source
	Fault() error
}

// toldSource says in the log, once, when its source gets into trouble, and when it
// is out of it again.
type toldSource struct {
	faulty
	log *logrus.Logger

	every time.Duration // how often the source is looked at

	mu   sync.Mutex
	said string
	next time.Time
}

const lookForFaults = time.Second

// told gives source with its trouble told to log, from now on. Without a log nobody
// looks for any.
func told(source faulty, log *logrus.Logger, every time.Duration) *toldSource {
	s := &toldSource{faulty: source, log: log, every: every}
	s.tell()
	return s
}

// Lookup implements [credential.Source].
func (s *toldSource) Lookup(ctx context.Context, registry, repository string) (credential.Credential, error) {
	c, err := s.faulty.Lookup(ctx, registry, repository)
	s.tell()
	return c, err
}

// trouble is what is wrong with the source; "" where nothing is.
func (s *toldSource) trouble() string {
	s.tell()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said
}

func (s *toldSource) tell() {
	if s.log == nil {
		return
	}
	s.mu.Lock()
	due := !time.Now().Before(s.next)
	if due {
		s.next = time.Now().Add(s.every)
	}
	s.mu.Unlock()
	if !due {
		return
	}
	now := ""
	if err := s.Fault(); err != nil {
		now = err.Error()
	}
	s.mu.Lock()
	changed := now != s.said
	s.said = now
	s.mu.Unlock()
	switch {
	case !changed:
	case now != "":
		s.log.WithField("error", now).Warn("credentials cannot be read as they are")
	default:
		s.log.Info("credentials can be read again")
	}
}
