package daemon

import (
	"context"
	"time"

	"github.com/sidemirror/sidemirror/daemon/sdnotify"
)

const (
	// linger is for what came in while the rest finished. An engine that is cut off
	// goes on where it was, which costs it less than the wait of those behind it.
	linger = 2 * time.Second
)

// stop ends in order: what is under way finishes, then nothing more comes in, what
// is left is cut, and whoever answered it closes.
//
// Until what was under way has finished, new requests are served. A socket of
// systemd's stays open while nobody accepts, so that they would wait for the
// next daemon, and there are engines that wait for an answer for ever.
func (d *daemon) stop(ctx context.Context, cut context.CancelFunc) {
	limit := d.config.ShutdownTimeout
	d.log.WithField("timeout", limit.String()).Info("stopping")
	d.notify(sdnotify.Stopping(limit + linger))
	// Idle connections are closed now, and the others after their next answer: an
	// engine repeats a request that comes too late for one.
	d.server.SetKeepAlivesEnabled(false)
	newcomers := newGeneration(d.work, d.handler.inForce().service)
	last := d.handler.swap(newcomers)
	last.stop()
	finished := make(chan struct{})
	d.tasks.Go(func() {
		last.streams.Wait()
		d.retiring.Wait()
		close(finished)
	})
	patience := linger
	select {
	case <-finished:
	case <-time.After(limit):
		patience = 0
	}
	d.shut(context.WithoutCancel(ctx), patience)
	cut()
	<-finished
	newcomers.retire() // closes the service that is last's too
	d.tasks.Wait()
	d.log.Info("stopped")
}

// shut closes the listeners, and the connections when they have had their answer, at
// the latest after patience. It is not http.Server's Shutdown, which closes
// without an answer connections whose first request is only just coming in; that is what engines
// do not try again.
func (d *daemon) shut(ctx context.Context, patience time.Duration) {
	closeAll(d.listeners)
	d.accepting.Wait() // from here on the limiter counts every connection
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if !d.limiter.Drain(ctx) {
		d.log.Warn("cutting what did not finish in time")
	}
	_ = d.server.Close() // its errors are those of broken connections
}
