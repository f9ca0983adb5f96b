package access

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
)

type (
	guestKey struct{}
	siteKey  struct{}
)

// WithGuests returns a context for the requests of guests of this host: containers and virtual machines
// that ask over a network of their own, at this host's address there. No guest is trusted, whatever its
// address.
func WithGuests(ctx context.Context, at netip.Addr) context.Context {
	return context.WithValue(ctx, guestKey{}, at.Unmap().WithZone(""))
}

// IsGuest reports whether the request of ctx is a guest's.
func IsGuest(ctx context.Context) bool { return ctx.Value(guestKey{}) != nil }

// WithSite returns a context for the requests of callers of the site: other hosts. None of them is
// trusted, whatever its address.
func WithSite(ctx context.Context) context.Context {
	return context.WithValue(ctx, siteKey{}, true)
}

// IsSite reports whether the request of ctx came in at the site.
func IsSite(ctx context.Context) bool { return ctx.Value(siteKey{}) != nil }

// guestNames are the names that guests have for their host. No name server of the internet has them:
// ".internal" is reserved.
var guestNames = []string{
	"host.docker.internal", "gateway.docker.internal", "host.containers.internal", "host.lima.internal", "host.minikube.internal",
}

// GuestHost reports whether the request of ctx is a guest's and host, the name in its Host header, is
// one that guests have for this host: its address in their network, or a usual name.
func GuestHost(ctx context.Context, host string) bool {
	at, guest := ctx.Value(guestKey{}).(netip.Addr)
	if !guest {
		return false
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap() == at
	}
	return slices.Contains(guestNames, host)
}
