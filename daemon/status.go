package daemon

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/daemon/sdnotify"
)

// lookEvery is how often the daemon looks for problems that come and go without a reload, such
// as those of a file with credentials.
const lookEvery = 5 * time.Second

// statusLine is the line that "systemctl status" shows: what is served and, after semicolons,
// the problems.
type statusLine struct {
	mu        sync.Mutex
	what      string
	addresses string // what is wrong with the addresses
	config    string // why the configuration on disk is not in force; "" if it is
	service   string // what is wrong with the service in force
}

func (l *statusLine) serving(what, addressProblems string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.what, l.addresses = what, addressProblems
}

// refused sets why the configuration on disk is not in force, and reports whether that is new.
func (l *statusLine) refused(why string) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed = l.config != why
	l.config = why
	return changed
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
	for _, problem := range []string{l.addresses, l.service} {
		if problem != "" {
			text += "; " + problem
		}
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
		if sdnotify.Enabled() && d.line.trouble(d.trouble()) && ctx.Err() == nil {
			d.notify(sdnotify.Status(d.line.text()))
		}
		d.reportWeakness()
		d.publish()
	}
}

// troubled is a service that reports its problems.
type troubled interface{ Trouble() string }

// trouble returns the present problems in a few words.
func (d *daemon) trouble() string {
	var list []string
	add := func(text string) {
		if text != "" {
			list = append(list, text)
		}
	}
	add(d.caches.trouble())
	add(d.names.trouble(d.log))
	_, problems := d.guests.report()
	for _, p := range problems {
		add(p.Error() + " (" + p.Hint + ")")
	}
	if s, ok := d.handler.get().service.(troubled); ok {
		add(s.Trouble())
	}
	return strings.Join(list, "; ")
}
