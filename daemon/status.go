package daemon

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// lookEvery is how often the daemon looks for problems that come and go without a reload, such
// as those of a file with credentials.
const lookEvery = 5 * time.Second

// statusLine is the line that "systemctl status" shows: what is served and, after semicolons,
// the problems.
type statusLine struct {
	mu        sync.Mutex
	what      string
	addresses []*problem.Problem // what is wrong with the addresses
	config    string             // why the configuration on disk is not in force; "" if it is
	inForce   served
	service   string // what is wrong with the service in force
}

func (l *statusLine) serving(what string, wrongAddresses []*problem.Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.what, l.addresses = what, wrongAddresses
}

// wrongAddresses returns what is wrong with the addresses that are served.
func (l *statusLine) wrongAddresses() []*problem.Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.addresses)
}

// refused sets why the configuration on disk is not in force, and reports whether that is new.
func (l *statusLine) refused(why string) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed = l.config != why
	l.config = why
	return changed
}

// reason returns why the configuration on disk is not in force; "" if it is.
func (l *statusLine) reason() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.config
}

// served is what the configuration in force serves.
type served struct {
	file                  string
	addresses, registries []string
}

// puts sets what is served.
func (l *statusLine) puts(s served) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inForce = s
}

// serves returns what is served.
func (l *statusLine) serves() served {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inForce
}

// isRefused reports whether the configuration on disk is not in force.
func (l *statusLine) isRefused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.config != ""
}

// trouble sets what is wrong with the service in force, and reports whether that is new.
func (l *statusLine) trouble(now string) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed = l.service != now
	l.service = now
	return changed
}

func (l *statusLine) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.what
	if l.config != "" {
		text += "; the configuration on disk is not in force: " + l.config
	}
	for _, p := range l.addresses {
		text += "; " + p.Error() + " (" + p.Hint + ")"
	}
	if l.service != "" {
		text += "; " + l.service
	}
	return text
}

// keepStatus updates the line, and the state that "sidemirror status" reads, until ctx is done. It
// has a goroutine of its own, since the files that it looks at may be on a server that is gone.
func (d *daemon) keepStatus(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		d.examine(time.Now())
		if sdnotify.Enabled() && d.line.trouble(d.trouble()) && ctx.Err() == nil {
			d.notify(sdnotify.Status(d.line.text()))
		}
		d.reportWeakness()
		d.publish()
		d.recheck(ctx)
	}
}

// trouble returns the present errors in a few words, without those that the line shows anyway.
func (d *daemon) trouble() string {
	var list []string
	for _, p := range d.health.Problems(time.Now()) {
		if p.Severity == health.Error && !slices.Contains(inLine, p.Code) {
			list = append(list, p.Error()+" ("+p.Hint+")")
		}
	}
	return strings.Join(list, "; ")
}
