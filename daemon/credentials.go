package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

// credentials returns the sources that c names, in their order. log may be nil.
func credentials(c *config.Config, log *logrus.Logger) []*watchedSource {
	sources := []*watchedSource{watchFaults(credential.OpenStore(c.Credentials.Store), log, lookForFaults)}
	for _, path := range c.Credentials.Files {
		sources = append(sources, watchFaults(&credential.File{Path: path}, log, lookForFaults))
	}
	return sources
}

// asSources returns the sources as the proxy uses them.
func asSources(sources []*watchedSource) credential.Sources {
	list := make(credential.Sources, len(sources))
	for i, s := range sources {
		list[i] = s
	}
	return list
}

// faulty is a source that may have a fault while it still serves what it read last.
type faulty interface {
	credential.Source
	Fault() error
}

// watchedSource logs when its source gets a fault, and when the fault is gone.
type watchedSource struct {
	faulty
	log *logrus.Logger

	every time.Duration // how often the source is examined

	mu    sync.Mutex
	fault string // as it was logged
	next  time.Time
}

const lookForFaults = time.Second

// watchFaults returns source with its faults logged. Without a log it looks for none.
func watchFaults(source faulty, log *logrus.Logger, every time.Duration) *watchedSource {
	s := &watchedSource{faulty: source, log: log, every: every}
	s.examine()
	return s
}

// Lookup implements [credential.Source].
func (s *watchedSource) Lookup(ctx context.Context, registry, repository string) (credential.Credential, error) {
	c, err := s.faulty.Lookup(ctx, registry, repository)
	s.examine()
	return c, err
}

// trouble returns what is wrong with the source, or "".
func (s *watchedSource) trouble() string {
	s.examine()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

func (s *watchedSource) examine() {
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
	changed := now != s.fault
	s.fault = now
	s.mu.Unlock()
	switch {
	case !changed:
	case now != "":
		s.log.WithField("error", now).Warn("logins cannot be read; those read last stay in use, and without them sidemirror asks anonymously")
	default:
		s.log.Info("logins can be read again")
	}
}
