// Package sdnotify talks to systemd: readiness and status, the watchdog, sockets that it
// hands over, and its units.
package sdnotify

import (
	"fmt"
	"os"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"
)

// Enabled reports whether systemd waits for notifications (sd_notify(3)). If it does not,
// the functions of this package that notify it do nothing.
func Enabled() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// Ready notifies systemd that the service serves, and replaces its status line.
func Ready(status string) error { return notify(sd.SdNotifyReady, "STATUS="+oneLine(status)) }

// Status replaces the service's status line.
func Status(status string) error { return notify("STATUS=" + oneLine(status)) }

// Reloading notifies systemd that a reload begins. Ready ends it.
func Reloading() error {
	// Type=notify-reload needs the time too.
	return notify(sd.SdNotifyReloading, strings.TrimSuffix(sd.SdNotifyMonotonicUsec(), "\n"))
}

// Stopping notifies systemd that the service ends, and that this may take up to within,
// whatever TimeoutStopSec= says.
func Stopping(within time.Duration) error {
	const margin = 5 * time.Second // for what follows
	return notify(sd.SdNotifyStopping,
		fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (within+margin).Microseconds()),
		"STATUS=finishing what is under way")
}

func notify(lines ...string) error {
	if _, err := sd.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("notifying systemd of %s: %w", lines[0], err)
	}
	return nil
}

// oneLine prevents text from being read as further assignments.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// StderrIsJournal reports whether lines written to standard error become journal entries.
func StderrIsJournal() bool {
	is, err := journal.StderrIsJournalStream()
	return err == nil && is
}
