package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/internal/bridge"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/access"
)

// guests are the listeners for containers and virtual machines, one for each address that this host has
// on a bridge. A fault of theirs neither ends the daemon nor keeps a configuration out of force: the
// bridges belong to other programs, which make them when they need them.
type guests struct {
	mu       sync.Mutex
	settings config.Guests
	open     map[guestAddress]*net.TCPListener
	problems []*problem.Problem
	closed   bool
	changed  chan struct{} // the settings have
}

// guestAddress is where guests are served.
type guestAddress struct {
	bridge.Network
	port uint16
}

func (a guestAddress) addr() netip.AddrPort { return netip.AddrPortFrom(a.Prefix.Addr(), a.port) }

func newGuests() *guests {
	return &guests{open: make(map[guestAddress]*net.TCPListener), changed: make(chan struct{}, 1)}
}

// set puts settings in force, soon.
func (g *guests) set(settings config.Guests) {
	g.mu.Lock()
	g.settings = settings
	g.mu.Unlock()
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// followGuests serves guests until ctx is done. Without guests.networks it does nothing, and waits for
// another configuration.
func (d *daemon) followGuests(ctx context.Context) {
	var bridges <-chan struct{}
	stop := func() {}
	defer func() { stop() }()
	for {
		var again <-chan time.Time
		if d.updateGuests() {
			if bridges == nil {
				watching, cancel := context.WithCancel(ctx)
				stop = cancel
				bridges = d.watchBridges(watching)
			}
			again = time.After(d.retryEvery)
		} else {
			stop()
			bridges = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-d.guests.changed:
		case <-again:
		case _, ok := <-bridges:
			if !ok {
				bridges = nil
			}
		}
	}
}

// watchBridges reports changes of bridges. If that is impossible, they are found every now and then.
func (d *daemon) watchBridges(ctx context.Context) <-chan struct{} {
	changed, err := bridge.Watch(ctx)
	if err != nil {
		d.log.WithError(err).Warn("guests on new bridges are served late")
		never := make(chan struct{})
		return never
	}
	return changed
}

// updateGuests opens and closes listeners as the bridges and the settings are now. It reports whether
// guests are configured.
func (d *daemon) updateGuests() bool {
	g := d.guests
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	want := make(map[guestAddress]bool)
	var problems []*problem.Problem
	if len(g.settings.Networks) > 0 {
		networks, wrong, err := bridge.List(g.settings.Networks)
		if err != nil {
			wrong = append(wrong, problem.Coded(err, "guests-not-served"))
		}
		problems = wrong
		for _, n := range networks {
			want[guestAddress{n, g.settings.Port}] = true
		}
	}
	for at, l := range g.open {
		if !want[at] {
			delete(g.open, at)
			_ = l.Close()
			d.log.WithField("address", at.addr().String()).WithField("interface", at.Interface).Info("guests are not served there any more")
		}
	}
	for at := range want {
		if g.open[at] != nil {
			continue
		}
		if p := d.openGuests(at); p != nil {
			problems = append(problems, p)
		}
	}
	d.noteGuests(problems)
	return len(g.settings.Networks) > 0
}

// openGuests begins to serve guests at an address. d.guests.mu must be locked.
func (d *daemon) openGuests(at guestAddress) *problem.Problem {
	l, err := listener.OpenGuests(d.work, at.Interface, at.addr())
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.ENODEV):
		return nil // it is gone again, or an IPv6 address that is being checked: a notification follows
	case errors.Is(err, fs.ErrPermission):
		return &problem.Problem{
			Code: "guests-port-privileged", Text: fmt.Sprintf("guests: this service may not listen on port %d of a bridge", at.port), Err: err,
			Hint: "sudo sidemirror apply, which lets the service do it; or set guests.port to 1024 or more",
		}
	case errors.Is(err, syscall.EADDRINUSE):
		return &problem.Problem{
			Code: "guests-port-taken", Text: fmt.Sprintf("guests: %v is taken", at.addr()), Err: err,
			Hint: "set guests.port to another port; a listen with 0.0.0.0 takes every address",
		}
	case err != nil:
		return problem.Coded(err, "guests-not-served")
	}
	d.guests.open[at] = l
	d.log.WithField("address", at.addr().String()).WithField("interface", at.Interface).Info("serving guests")
	d.accept(l.Addr(), listener.LimitGuests(l, d.limiter, at))
	return nil
}

// noteGuests stores problems, and logs new ones. d.guests.mu must be locked.
func (d *daemon) noteGuests(problems []*problem.Problem) {
	slices.SortFunc(problems, func(a, b *problem.Problem) int { return strings.Compare(a.Error(), b.Error()) })
	for _, p := range problems {
		known := slices.ContainsFunc(d.guests.problems, func(old *problem.Problem) bool { return old.Error() == p.Error() })
		if !known {
			d.log.WithField("hint", p.Hint).Warn(p.Error())
		}
	}
	d.guests.problems = problems
}

// report returns where guests are served, and what is wrong.
func (g *guests) report() (at []string, problems []*problem.Problem) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for address := range maps.Keys(g.open) {
		at = append(at, address.addr().String()+" ("+address.Interface+")")
	}
	slices.Sort(at)
	return at, slices.Clone(g.problems)
}

// close closes the listeners.
func (g *guests) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for _, l := range g.open {
		_ = l.Close() // no data can be lost with a listener
	}
	clear(g.open)
}

// contextOf returns the context of the requests that come in over l.
func (d *daemon) contextOf(l net.Listener) context.Context {
	if l, guests := l.(*listener.GuestListener); guests {
		return access.WithGuests(d.work, l.Addr().(*net.TCPAddr).AddrPort().Addr())
	}
	return d.work
}
