package daemon

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/daemon/sdnotify"
)

// lookEvery is how often it is looked for trouble that comes and goes without a
// reload, as that of a file with credentials.
const lookEvery = 5 * time.Second

// statusLine is the one line that "systemctl status" shows of us: what is served,
// and what is amiss.
type statusLine struct {
	mu    sync.Mutex
	what  string
	amiss struct{ configuration, service string }
}

// serving begins the line anew, with a configuration that is in force.
func (l *statusLine) serving(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.what, l.amiss.configuration = what, ""
}

// refused adds why another configuration is not.
func (l *statusLine) refused(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.amiss.configuration = why
}

// trouble replaces what is wrong with the service in force, and reports whether
// that was something else before.
func (l *statusLine) trouble(now string) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed = l.amiss.service != now
	l.amiss.service = now
	return changed
}

func (l *statusLine) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.what
	for _, amiss := range []string{l.amiss.service, l.amiss.configuration} {
		if amiss != "" {
			text += "; " + amiss
		}
	}
	return text
}

// keepStatus keeps the line true until ctx is done. What it looks at may be files on a
// server that is gone, whence a goroutine of its own.
func (d *daemon) keepStatus(ctx context.Context, every time.Duration) {
	if !sdnotify.Enabled() {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if d.line.trouble(d.trouble()) && ctx.Err() == nil {
			d.notify(sdnotify.Status(d.line.text()))
		}
	}
}

// troubled is a service that can say what is wrong with it.
type troubled interface{ Trouble() string }

// trouble is what is amiss now, in a few words.
func (d *daemon) trouble() string {
	var list []string
	if amiss := d.caches.trouble(); amiss != "" {
		list = append(list, amiss)
	}
	if amiss := d.names.trouble(d.log); amiss != "" {
		list = append(list, amiss)
	}
	if s, ok := d.handler.inForce().service.(troubled); ok && s.Trouble() != "" {
		list = append(list, s.Trouble())
	}
	return strings.Join(list, "; ")
}
