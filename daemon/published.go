package daemon

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// refusedFor is for how long a caller that was not trusted is shown.
const refusedFor = 24 * time.Hour

// published is the state that was written last.
type published struct {
	text   []byte // as JSON
	failed bool   // to be written, which is logged once
}

// publish writes the state that "sidemirror status" reads, if it has changed.
func (d *daemon) publish() {
	dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	if dir == "" {
		return // not started by systemd
	}
	now := d.state()
	text, err := json.Marshal(now)
	if err == nil && bytes.Equal(text, d.published.text) {
		return
	}
	if err := state.Write(dir, now); err != nil {
		if !d.published.failed {
			d.log.WithError(err).Warn("sidemirror status shows less than it could")
		}
		d.published.failed = true
		return
	}
	d.published = published{text: text}
}

// problematic is a service that has logins and problems to report in detail.
type problematic interface {
	Problems() []*problem.Problem

	// LoginsInUse returns the logins that upstreams have accepted.
	LoginsInUse() []state.Login
}

// state returns what the daemon knows of itself.
func (d *daemon) state() state.State {
	var s state.State
	if p, ok := d.handler.get().service.(problematic); ok {
		s.Logins = p.LoginsInUse()
	}
	for _, p := range d.health.Problems(time.Now()) {
		if p.Severity == health.Error {
			s.Problems = append(s.Problems, p.Problem)
		} else {
			s.Notes = append(s.Notes, p.Problem)
		}
	}
	s.Guests, _ = d.guests.report()
	s.Site = d.site.report()
	if p, ok := d.handler.get().service.(interface{ Outbound() *state.Outbound }); ok {
		s.Outbound = p.Outbound()
	}
	trust := d.trust.Load()
	for _, r := range d.caches.refused.Since(time.Now().Add(-refusedFor), trust) {
		s.Refused = append(s.Refused, state.Refused{
			UID: r.UID, Group: r.Group, Container: r.Container, UserTrusted: r.Named,
			Requests: r.Requests, Last: r.Last.Truncate(time.Second).UTC(),
		})
	}
	return s
}
