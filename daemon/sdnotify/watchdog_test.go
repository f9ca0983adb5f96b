package sdnotify

import (
	"context"
	"errors"
	"os"
	"strconv"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/sdnotify/sdnotifytest"
)

func TestWatchdogIsNotifiedOnlyWhenAliveSucceeds(t *testing.T) {
	told := sdnotifytest.Listen(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked, failures := 0, 0
	Watchdog(ctx, func(context.Context) error {
		asked++
		if asked == 4 {
			cancel()
			return nil
		}
		return errors.New("no answer")
	}, func(error) { failures++ })
	if got := <-told; got != "WATCHDOG=1" || failures != 3 {
		t.Errorf("notified %q after %d failures", got, failures)
	}
	select {
	case got := <-told:
		t.Errorf("notified although alive failed: %q", got)
	default:
	}
}
