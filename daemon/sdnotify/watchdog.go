package sdnotify

import (
	"context"
	"fmt"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// Watchdog reports to systemd's watchdog for as long as alive succeeds. It calls alive three
// times in each WatchdogSec= and gives it a third of that time. It calls failed with each
// error. It returns when ctx is done, or at once if systemd does not watch this service.
func Watchdog(ctx context.Context, alive func(context.Context) error, failed func(error)) {
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
