package sdnotify

import (
	"context"
	"fmt"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// Watchdog shows systemd's watchdog that this service works. It returns when ctx is done, or at once
// if systemd does not watch this service.
//
// WatchdogSec= bounds how long the whole process may stand still, as after SIGSTOP: Watchdog notifies
// systemd four times in it. Once in that time it calls alive, to which it gives more time: a busy
// process may respond late. It calls failed with each error. If alive has not succeeded for four
// times WatchdogSec=, Watchdog asks systemd to act at once.
func Watchdog(ctx context.Context, alive func(context.Context) error, failed func(error)) {
	within, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		failed(fmt.Errorf("reading WatchdogSec= from the environment: %w", err))
		return
	}
	if within == 0 {
		return
	}
	report := func(err error) {
		if err != nil && ctx.Err() == nil {
			failed(err)
		}
	}
	results := make(chan error)
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() { ask(ctx, within, alive, results) })
	notifying := time.NewTicker(within / 4)
	defer notifying.Stop()
	lastResponse := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-results:
			report(err)
			switch {
			case err == nil:
				lastResponse = time.Now()
			case time.Since(lastResponse) >= patience(within):
				report(notify("WATCHDOG=trigger"))
			}
		case <-notifying.C:
			report(notify(sd.SdNotifyWatchdog))
		}
	}
}

// patience is how long alive may take, or fail.
func patience(within time.Duration) time.Duration { return 4 * within }

// ask calls alive once in each WatchdogSec= and sends what it returns, until ctx is done.
func ask(ctx context.Context, within time.Duration, alive func(context.Context) error, results chan<- error) {
	tick := time.NewTicker(within)
	defer tick.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, patience(within))
		err := alive(asking)
		cancel()
		select {
		case results <- err:
		case <-ctx.Done():
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
