package daemon

import (
	"context"
	"time"
)

const (
	// linger is for what came in while the rest finished. An engine that is cut off
	// goes on where it was, which costs it less than the wait of those behind it.
	linger = 2 * time.Second

	// silence is for connections over which nothing has come yet. Clients in Go keep
	// such in reserve, and miss them no more than idle ones.
	silence = 250 * time.Millisecond
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
	d.tell(notifyStopping(limit + linger))
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
	d.accepting.Wait() // from here on the door counts them all
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if !d.door.empties(ctx) {
		d.log.Warn("cutting what did not finish in time")
	}
	_ = d.server.Close() // its errors are those of broken connections
}

// empties waits until nobody is left but those who have been silent for a while, and
// reports whether that came before ctx was done.
func (d *door) empties(ctx context.Context) bool {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		all, silent := d.all.Load(), d.silent.Load()
		if all == 0 || all == silent && time.Since(began) > silence {
			return true
		}
		select {
		case <-ctx.Done():
			return all == silent
		case <-tick.C:
		}
	}
}
