package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/coreos/go-systemd/v22/journal"
)

// notify tells systemd (sd_notify(3)); without NOTIFY_SOCKET nobody listens, and
// that is no error.
func notify(lines ...string) error {
	if _, err := sd.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("telling systemd %s: %w", lines[0], err)
	}
	return nil
}

func notifyReady(status string) error { return notify(sd.SdNotifyReady, "STATUS="+oneLine(status)) }

func notifyStatus(status string) error { return notify("STATUS=" + oneLine(status)) }

// notifyReloading begins a reload, which notifyReady ends. Type=notify-reload
// wants the time too.
func notifyReloading() error {
	return notify(sd.SdNotifyReloading, strings.TrimSuffix(sd.SdNotifyMonotonicUsec(), "\n"))
}

// notifyStopping announces an end that may take up to within, whatever
// TimeoutStopSec= says.
func notifyStopping(within time.Duration) error {
	const margin = 5 * time.Second // for what comes after it
	return notify(sd.SdNotifyStopping,
		fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (within+margin).Microseconds()),
		"STATUS=finishing what is under way")
}

// heard says whether systemd listens.
func heard() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// oneLine keeps text from being taken for further assignments.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// stderrIsJournal reports whether what is written to standard error becomes journal entries.
func stderrIsJournal() bool {
	is, err := journal.StderrIsJournalStream()
	return err == nil && is
}

// handedOver are the sockets that systemd opened for us (sd_listen_fds(3)), or none.
// All of them must be listening TCP sockets.
func handedOver() ([]*net.TCPListener, error) {
	var listeners []*net.TCPListener
	var faults []error
	for _, f := range activation.Files(true) {
		l, err := tcpListener(f)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		listeners = append(listeners, l)
	}
	if len(faults) > 0 {
		for _, l := range listeners {
			_ = l.Close()
		}
		return nil, errors.Join(faults...)
	}
	return listeners, nil
}

// tcpListener takes f over.
func tcpListener(f *os.File) (*net.TCPListener, error) {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("the socket %q that systemd handed over does not listen for connections (%w); use ListenStream=IP:PORT in the .socket unit", f.Name(), err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		_ = l.Close()
		return nil, fmt.Errorf("the socket %q that systemd handed over is a %s one, and engines speak TCP; use ListenStream=IP:PORT in the .socket unit", f.Name(), l.Addr().Network())
	}
	return tcp, nil
}

// watchdog tells systemd that we live for as long as alive answers, which is asked
// thrice in each WatchdogSec= and has a third of it to answer. It returns when ctx
// is done, and at once where systemd does not watch.
func watchdog(ctx context.Context, alive func(context.Context) error, failed func(error)) {
	within, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		failed(fmt.Errorf("reading WatchdogSec= from the environment: %w", err))
		return
	}
	if within == 0 {
		return
	}
	tick := time.NewTicker(within / 3)
	defer tick.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, within/3)
		err := alive(asking)
		cancel()
		if err == nil {
			err = notify(sd.SdNotifyWatchdog)
		}
		if err != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
