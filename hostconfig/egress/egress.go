// Package egress finds the forward proxy through which a host's engines reach registries: in the
// environment of their services (HTTPS_PROXY and its relatives), and in Docker's own configuration.
package egress

import (
	"context"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/secret"
)

// Proxy is a forward proxy, and what is reached without it. The URLs may have a login. They and the
// list are as the engine has them: how they are read is up to golang.org/x/net/http/httpproxy, which
// the engines use too.
type Proxy struct {
	// HTTP and HTTPS are the proxies for http and https URLs.
	HTTP, HTTPS secret.Secret

	// NoProxy is the list of what is reached without a proxy.
	NoProxy string

	// From is where the settings are, for people: "docker.service", "/etc/docker/daemon.json".
	From string
}

// equal reports whether two proxies are the same, wherever they are set.
func (p Proxy) equal(other Proxy) bool {
	return p.HTTP.Equal(other.HTTP) && p.HTTPS.Equal(other.HTTPS) && p.NoProxy == other.NoProxy
}

// Units is the service manager that the engines run under.
type Units interface {
	// Environment returns what the manager gives the processes of a unit: assignments, then files,
	// and then what it takes out again. All are empty if there is no such unit.
	Environment(ctx context.Context, unit string) (set, files, unset []string, err error)

	// Active reports whether a unit is active.
	Active(ctx context.Context, unit string) (bool, error)

	// Outdated reports whether files of a unit have changed since the service manager read them.
	Outdated(ctx context.Context, unit string) (bool, error)
}

// Found is what was found.
type Found struct {
	// Proxy is the engines'; nil if they have none.
	Proxy *Proxy

	// Outdated says that systemd has not yet read the files of a unit again, so that the settings may
	// be others soon.
	Outdated bool

	// Notes say what is not as it seems.
	Notes []*problem.Problem
}

// Find looks at the services of engines, which are names as in [engine.Desired]. The proxy is that of
// the first service that has one, in the order of [services]; those of engines that run come first.
// units is nil if there is no service manager to ask: then the files tell.
func Find(ctx context.Context, h *engine.Host, engines []string, units Units) Found {
	f := finder{Host: h, units: units}
	var running, stopped []Proxy
	for _, s := range services {
		if !s.of(engines) {
			continue
		}
		p := f.settings(ctx, s)
		switch {
		case p == nil:
		case f.active(ctx, s):
			running = append(running, *p)
		default:
			stopped = append(stopped, *p)
		}
	}
	switch {
	case len(running) > 0:
		f.found.Proxy = &running[0]
		f.noteOthers(running)
	case len(stopped) > 0:
		f.found.Proxy = &stopped[0]
	}
	return f.found
}

// noteOthers notes engines whose proxy is another than the one that is used, the first of the list.
func (f *finder) noteOthers(list []Proxy) {
	for _, p := range list[1:] {
		if !p.equal(list[0]) {
			f.found.Notes = append(f.found.Notes, &problem.Problem{
				Code: "engine-proxies-differ", Path: p.From, Text: "sets another proxy than " + list[0].From + ", whose proxy sidemirror uses for all engines",
				Hint: "make the two the same, or write the proxy that sidemirror should use in [outbound] of its configuration",
			})
		}
	}
}
