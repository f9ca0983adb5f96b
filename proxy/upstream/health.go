package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	longestBackoff = time.Minute

	// cheapFailure is what a failure may cost without any back-off: a connection that is
	// refused at once costs the next caller nothing.
	cheapFailure = 500 * time.Millisecond

	// growth bounds the back-off as a multiple of what the failure cost.
	growth = 16

	// joinTime is how long a caller waits for the attempt of another one.
	joinTime = time.Second
)

// health knows whether a server can be reached. Only a failure to connect, TLS included,
// and a probe that gets no response count: one slow or failing request says nothing
// about the next.
//
// A server that cannot be reached is left alone for as long as the failure cost, then
// for twice that, up to 16 times and a minute. After that one caller tries it, and the
// others wait for the outcome. The back-off ends early if the addresses of the host
// change: the network has come up.
type health struct {
	changed func(error)   // called when down changes, and when its reason does; may be nil
	longest time.Duration // of the back-off

	// shortest is how long the back-off lasts at least, after a failure that took time.
	shortest time.Duration

	mu       sync.Mutex
	down     bool
	silent   bool   // it accepts connections and does not answer: only a response ends that
	why      string // the kind of the last failure
	failures int    // in a row
	last     time.Time
	until    time.Time // of the back-off
	network  string    // the host's addresses when it failed
	attempt  chan struct{}
}

// admit reports whether the server may be asked now. A patient caller, who has no other
// server to ask, is always admitted. end must be called when the caller is done.
func (h *health) admit(ctx context.Context, patient bool) (end func(), ok bool) {
	h.mu.Lock()
	if !h.down {
		h.mu.Unlock()
		return func() {}, true
	}
	other := h.attempt
	if other == nil && (patient || h.due()) {
		mine := make(chan struct{})
		h.attempt = mine
		h.mu.Unlock()
		return func() { h.ended(mine) }, true
	}
	h.mu.Unlock()
	if patient || other == nil {
		return func() {}, patient
	}
	late := time.NewTimer(joinTime)
	defer late.Stop()
	select {
	case <-ctx.Done():
	case <-late.C:
	case <-other:
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return func() {}, !h.down
}

// due reports whether the back-off is over.
func (h *health) due() bool {
	return !time.Now().Before(h.until) || hostAddresses() != h.network
}

// isDue is due for callers without the lock.
func (h *health) isDue() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.due()
}

// ended releases those who wait for the attempt mine.
func (h *health) ended(mine chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.attempt == mine {
		h.attempt = nil
		close(mine)
	}
}

// failed records that an attempt that began at started did not reach the server. Of
// attempts that fail together one counts. silent says that the server accepted the
// connection.
func (h *health) failed(err error, started time.Time, silent bool) {
	network := hostAddresses()
	now := time.Now()
	h.mu.Lock()
	if !started.Before(h.last) {
		factor := time.Duration(min(1<<min(h.failures, 8), growth))
		h.failures++
		h.last, h.until, h.network = now, now, network
		if cost := now.Sub(started); cost > cheapFailure {
			h.until = now.Add(max(min(cost*factor, h.longest), h.shortest))
		}
	}
	why := kindOfFailure(err)
	news := !h.down || why != h.why
	h.down, h.silent, h.why = true, silent, why
	h.mu.Unlock()
	if news && h.changed != nil {
		h.changed(err)
	}
}

// kindOfFailure returns what is the same for failures with the same cause. The reason of an expired
// certificate, for example, has the time of the attempt.
func kindOfFailure(err error) string {
	if isTimeout(err) {
		return "timeout"
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Sprintf("%T", e.Err)
	}
	return reason(err)
}

// connected records that a connection was made.
func (h *health) connected() { h.recovered(false) }

// answered records that the server sent a response.
func (h *health) answered() { h.recovered(true) }

func (h *health) recovered(answered bool) {
	h.mu.Lock()
	was := h.down && (answered || !h.silent)
	if was {
		h.down, h.silent, h.failures = false, false, 0
		if h.attempt != nil {
			close(h.attempt)
			h.attempt = nil
		}
	}
	h.mu.Unlock()
	if was && h.changed != nil {
		h.changed(nil)
	}
}

func (h *health) isDown() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

func (h *health) isSilent() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.silent
}

// hostAddresses returns the addresses by which the host may reach others, in one text
// for comparison.
func hostAddresses() string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	var texts []string
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			texts = append(texts, n.String())
		}
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}
