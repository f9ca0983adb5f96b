package daemon

import (
	"context"
	"time"

	"github.com/sidemirror/sidemirror/daemon/sdnotify"
)

// linger is how long requests may take that came in while the earlier ones finished. An engine
// that is cut off continues where it was, which costs it less than the wait of the engines
// behind it.
const linger = 2 * time.Second

// stop ends in order: the requests under way finish, then nothing more is accepted, the rest is
// cut, and the services close.
//
// Until the requests under way have finished, new ones are served. A socket of systemd's stays
// open while no process accepts, so they would wait for the next daemon, and some engines wait
// for an answer for ever.
func (d *daemon) stop(ctx context.Context, cut context.CancelFunc) {
	limit := d.config.ShutdownTimeout
	d.log.WithField("timeout", limit.String()).Info("stopping")
	d.notify(sdnotify.Stopping(limit + linger + flushTime))
	// Idle connections are closed now, and the others after their next response: an engine
	// repeats a request that comes too late for one.
	d.server.SetKeepAlivesEnabled(false)
	newcomers := newGeneration(d.work, d.handler.get().service)
	last := d.handler.swap(newcomers)
	last.stop()
	finished := make(chan struct{})
	d.tasks.Go(func() {
		last.requests.Wait()
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
	newcomers.retire() // closes the service, which it shares with last
	d.tasks.Wait()
	d.log.Info("stopped")
}

// shut closes the listeners, and the connections when they have had their response, at the
// latest after patience. http.Server.Shutdown would close connections whose first request is
// just coming in without a response, and engines do not try those again.
func (d *daemon) shut(ctx context.Context, patience time.Duration) {
	d.sockets.close()
	d.guests.close()
	d.site.close()
	d.accepting.Wait() // from here on the limiter counts every connection
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// Other hosts may take all of that time, and the engines do not have less of it for that.
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		d.site.drain(ctx)
	}()
	defer func() { <-drained }()
	if !d.limiter.Drain(ctx) {
		d.log.Warn("cutting what did not finish in time")
	}
	_ = d.server.Close() // its errors are those of broken connections
}
