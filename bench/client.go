package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"
)

// order is what a client process does. It comes on its standard input.
type order struct {
	// Pull, if not nil, is all that it does.
	Pull *pullOrder

	Address string // "127.0.0.1:80"
	Path    string
	Clients int // connections at once
	Times   int // requests on each of them, one after the other

	// Rate, if not 0, makes slow readers: bytes/s of each, for Seconds. Then they leave in the middle
	// of the body.
	Rate    int64
	Seconds float64
}

// String says what the order is about.
func (o order) String() string {
	if o.Pull != nil {
		return fmt.Sprintf("pull of %s%s from %s", o.Pull.Tag, o.Pull.Digest, o.Pull.Server)
	}
	return fmt.Sprintf("%d clients of http://%s%s", o.Clients, o.Address, o.Path)
}

// account is what a client process did.
type account struct {
	Seconds float64 // from the moment at which all asked at once
	Bytes   int64   // of all
	Each    []times // of each connection's last request
}

// times are those of one request, from the moment at which all clients asked. Gap is the longest wait
// for the next byte.
type times struct{ First, Last, Gap time.Duration }

// runClient has another process do o, so that its cost counts neither as a server's nor as the
// upstream's.
func runClient(ctx context.Context, o order) (account, error) {
	self, err := os.Executable()
	if err != nil {
		return account{}, err
	}
	in, out, err := os.Pipe()
	if err != nil {
		return account{}, err
	}
	defer in.Close()
	c := exec.CommandContext(ctx, self, clientWord)
	c.Stdin = in
	c.Stderr = os.Stderr
	said := json.NewEncoder(out).Encode(o)
	if err := errors.Join(said, out.Close()); err != nil {
		return account{}, err
	}
	text, err := c.Output()
	if err != nil {
		return account{}, fmt.Errorf("%s: %w", o, err)
	}
	var a account
	if err := json.Unmarshal(text, &a); err != nil {
		return account{}, fmt.Errorf("read what the client process reports: %w", err)
	}
	return a, nil
}

// clientWord is the argument with which this program is its own client process.
const clientWord = "client"

// clientMain is the client process.
func clientMain(ctx context.Context) error {
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	do := o.do
	if o.Pull != nil {
		do = o.Pull.do
	}
	a, err := do(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(a)
}

func (o order) do(ctx context.Context) (account, error) {
	receive := 0
	if o.Rate > 0 {
		receive = 64 << 10 // a slow reader's backlog must be at the server, not here
	}
	wires := make([]*wire, o.Clients)
	for i := range wires {
		w, err := dial(ctx, o.Address, receive)
		if err != nil {
			return account{}, err
		}
		defer w.close()
		wires[i] = w
	}
	var (
		all    sync.WaitGroup
		a      = account{Each: make([]times, o.Clients)}
		counts = make([]int64, o.Clients)
		faults = make([]error, o.Clients)
		start  = time.Now()
	)
	for i, w := range wires {
		all.Go(func() {
			if o.Rate > 0 {
				counts[i], faults[i] = w.sip(ctx, o, start)
				return
			}
			for range o.Times {
				t, n, err := w.get(o.Path, start)
				if err != nil {
					faults[i] = err
					return
				}
				a.Each[i] = t
				counts[i] += n
			}
		})
	}
	all.Wait()
	a.Seconds = time.Since(start).Seconds()
	for _, n := range counts {
		a.Bytes += n
	}
	return a, errors.Join(faults...)
}

// sip reads slowly, and leaves when the time is over.
func (w *wire) sip(ctx context.Context, o order, start time.Time) (int64, error) {
	if err := w.send(o.Path); err != nil {
		return 0, err
	}
	length, err := w.answer()
	if err != nil {
		return 0, err
	}
	const beat = 100 * time.Millisecond
	tick := time.NewTicker(beat)
	defer tick.Stop()
	end := start.Add(time.Duration(o.Seconds * float64(time.Second)))
	var count int64
	for time.Now().Before(end) && count < length {
		n, err := w.drop(min(o.Rate/int64(time.Second/beat), length-count))
		if err != nil {
			return count, err
		}
		count += n
		select {
		case <-ctx.Done():
			return count, ctx.Err()
		case <-tick.C:
		}
	}
	return count, nil
}
