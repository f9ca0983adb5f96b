package sdnotify

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/sdnotify/sdnotifytest"
)

const (
	fed       = "WATCHDOG=1\n"
	triggered = "WATCHDOG=trigger\n"
)

// watch runs Watchdog with a WatchdogSec= of so many microseconds until the end of the test.
func watch(t *testing.T, microseconds int, alive func(context.Context) error, failed func(error)) sdnotifytest.Messages {
	t.Helper()
	messages := sdnotifytest.Listen(t)
	t.Setenv("WATCHDOG_USEC", strconv.Itoa(microseconds))
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Watchdog(ctx, alive, failed)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return messages
}

func noLog() string { return "" }

func TestWatchdogActsAtOnceWhenAliveFailsForLong(t *testing.T) {
	var failures atomic.Int32
	messages := watch(t, 30_000, func(context.Context) error { return errors.New("no response") }, func(error) { failures.Add(1) })
	messages.Wait(t, fed, noLog)
	messages.Wait(t, triggered, noLog)
	if n := failures.Load(); n < 2 {
		t.Errorf("it acted after %d failures", n)
	}
}

func TestWatchdogActsAtOnceWhenAliveHangs(t *testing.T) {
	messages := watch(t, 30_000, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, func(error) {})
	messages.Wait(t, triggered, noLog)
}

// A process that responds late is busy, and does not hang: it must not be killed for that.
func TestWatchdogIsNotifiedWhileAliveTakesLong(t *testing.T) {
	release := make(chan struct{})
	asked := make(chan struct{}, 1)
	messages := watch(t, 200_000, func(context.Context) error {
		asked <- struct{}{}
		<-release
		return nil
	}, func(err error) { t.Errorf("it failed: %v", err) })
	<-asked
	messages.Wait(t, fed, noLog)
	close(release)
	<-asked
	messages.Wait(t, fed, noLog)
}
