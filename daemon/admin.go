package daemon

import (
	"os"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/daemon/activity"
	"github.com/sidemirror/sidemirror/daemon/admin"
)

// serveAdmin serves the admin API in the folder that systemd made for the service. Pulls need none of
// it, so that a failure is logged and ends nothing. The function that it returns ends it.
func (d *daemon) serveAdmin() (end func()) {
	folder, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	if folder == "" {
		return func() {} // not started by systemd
	}
	s, err := admin.Serve(folder, d, d.metrics.Handler())
	if err != nil {
		d.log.WithError(err).Warn("the admin API is not served, so that commands cannot ask the daemon")
		return func() {}
	}
	return s.Close
}

// Status implements [admin.Daemon].
func (d *daemon) Status(now time.Time) admin.Status {
	serving := d.line.serves()
	s := admin.Status{
		Version: d.version, Started: d.started.UTC().Truncate(time.Second), Addresses: serving.addresses,
		Configuration: admin.Configuration{File: serving.file, Reason: d.line.reason(), Refusing: d.isRefusing(), Registries: serving.registries},
		Cache:         d.caches.status(), Problems: d.health.Problems(now),
	}
	s.Configuration.InForce = s.Configuration.Reason == ""
	more := d.state()
	s.Logins, s.Outbound, s.Guests, s.Site, s.Refused = more.Logins, more.Outbound, more.Guests, more.Site, more.Refused
	return s
}

// Activity implements [admin.Daemon].
func (d *daemon) Activity(now time.Time) activity.Activity { return d.activity.Activity(now) }

// Ready implements [admin.Daemon].
func (d *daemon) Ready() string {
	if d.isRefusing() {
		return "no-configuration"
	}
	return ""
}

// isRefusing reports whether there is no configuration in force.
func (d *daemon) isRefusing() bool {
	g := d.handler.get()
	if g == nil {
		return true
	}
	_, refuses := g.service.(refusal)
	return refuses
}
