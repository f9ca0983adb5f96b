package daemon

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/credential/dockerhelper"
	"github.com/sidemirror/sidemirror/proxy/credential/kubelet"
	"github.com/sidemirror/sidemirror/proxy/credential/program"
	"github.com/sidemirror/sidemirror/proxy/credential/sealed"
)

// logins are the sources of the daemon's credentials, in the order in which they are asked.
type logins struct {
	store   *credential.Store // what "sidemirror login" stored
	sources []*watchedSource
	files   int // the first ones are files, or a variable; the others run programs
	helpers *dockerhelper.Helpers
	plugins *kubelet.Plugins // nil if none are configured
}

// credentials returns the sources that c and the environment name. log may be nil.
func credentials(c *config.Config, log *logrus.Logger) *logins {
	l := &logins{helpers: dockerhelper.New(program.NewRunner(c.Credentials.HelperDirs, helperEnvironment(c)))}
	add := func(source faulty) {
		if file, ok := source.(interface{ LookEvery(time.Duration) }); ok {
			file.LookEvery(lookAtFiles)
		}
		l.sources = append(l.sources, watchFaults(source, log, lookForFaults))
	}
	store := credential.OpenStore(c.Credentials.Store)
	if dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":"); dir != "" {
		store.WithDecrypted(filepath.Join(dir, sealed.DecryptedName))
	}
	l.store = store
	add(store)
	passed, err := credential.Passed(os.Getenv("CREDENTIALS_DIRECTORY"), l.helpers)
	if err != nil && log != nil {
		log.WithError(err).Warn("not all credentials of systemd are used")
	}
	for _, file := range passed {
		add(file)
	}
	for _, path := range c.Credentials.Files {
		add(&credential.File{Path: path, Helpers: l.helpers})
	}
	if text := os.Getenv(authVariable); text != "" {
		add(credential.NewVariable(authVariable, text))
	}
	l.files = len(l.sources)
	bound := &dockerhelper.Bound{Helpers: l.helpers} // which reports those that a file names too
	for _, text := range c.Credentials.Helpers {
		pattern, name := config.CutHelper(text)
		bound.Rules = append(bound.Rules, dockerhelper.Rule{Pattern: pattern, Helper: name})
	}
	add(bound)
	if c.Credentials.Plugins != "" {
		l.plugins = kubelet.New(c.Credentials.Plugins, program.NewRunner([]string{c.Credentials.PluginDir}, helperEnvironment(c)))
		add(l.plugins)
	}
	return l
}

// authVariable is Docker's variable with the content of a config.json.
const authVariable = "DOCKER_AUTH_CONFIG"

// helperEnvironment returns the environment of helpers and plugins. It has nothing of the daemon's
// own that the configuration does not name.
func helperEnvironment(c *config.Config) []string {
	env := []string{"HOME=" + filepath.Dir(c.Credentials.Store), "PATH=" + os.Getenv("PATH")}
	for _, name := range c.Credentials.HelperEnvironment {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// asSources returns the sources as the proxy uses them.
func (l *logins) asSources() credential.Sources {
	list := make(credential.Sources, len(l.sources))
	for i, s := range l.sources {
		list[i] = s
	}
	return list
}

// close ends the helpers and plugins that run.
func (l *logins) close() {
	l.helpers.Close()
	if l.plugins != nil {
		l.plugins.Close()
	}
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

	every    time.Duration // how often the source is examined
	examined atomic.Pointer[time.Time]

	mu    sync.Mutex
	fault string // as it was logged
	err   error  // the same
}

const (
	lookForFaults = time.Second

	// lookAtFiles is how often a file of logins is looked at while requests come: one look serves a
	// burst, and a person who changes the file sees the effect at once.
	lookAtFiles = 20 * time.Millisecond
)

// watchFaults returns source with its faults logged. Without a log it looks for none.
func watchFaults(source faulty, log *logrus.Logger, every time.Duration) *watchedSource {
	s := &watchedSource{faulty: source, log: log, every: every}
	s.examine()
	return s
}

// Lookup implements [credential.Source].
func (s *watchedSource) Lookup(ctx context.Context, registry, repository string) (credential.Credential, error) {
	c, err := s.faulty.Lookup(ctx, registry, repository)
	if err != nil { // the log says so at once, and not when the next request comes
		s.examined.Store(nil)
	}
	s.examine()
	return c, err
}

// problems returns what is wrong with the source.
func (s *watchedSource) problems() (list []*problem.Problem) {
	s.examine()
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	for _, each := range problem.Split(err) {
		p := *problem.Coded(each, "credentials-unreadable")
		if p.Hint == "" {
			p.Hint = "sidemirror config check"
		}
		list = append(list, &p)
	}
	return list
}

func (s *watchedSource) examine() {
	if s.log == nil {
		return
	}
	before := s.examined.Load()
	if before != nil && time.Since(*before) < s.every {
		return
	}
	if at := time.Now(); !s.examined.CompareAndSwap(before, &at) {
		return // another request does it
	}
	now, err := "", s.Fault()
	if err != nil {
		now = err.Error()
	}
	s.mu.Lock()
	changed := now != s.fault
	s.fault, s.err = now, err
	s.mu.Unlock()
	switch {
	case !changed:
	case now != "":
		log := s.log.WithField("error", now)
		if hint := problem.Hint(err); hint != "" {
			log = log.WithField("hint", hint)
		}
		log.Warn("logins cannot be read; those read last stay in use, and without them sidemirror asks anonymously")
	default:
		s.log.Info("logins can be read again")
	}
}
