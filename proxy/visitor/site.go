// Package visitor decides who may ask at a site, the mirror on a domain of its own, and how much.
//
// A visitor is known by its address, which a trusted reverse proxy may name, and where the site has
// users by its login. Nothing here makes a visitor trusted.
package visitor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidemirror/sidemirror/proxy/forwarded"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/visitor/users"
)

// Settings say who may ask.
type Settings struct {
	// Allow are the networks that are served. If there are none, the private networks of this host are.
	Allow []netip.Prefix

	// TrustedProxies are the reverse proxies whose headers name the visitor.
	TrustedProxies []netip.Prefix

	// Users is a file of htpasswd; "" if no login is required.
	Users string

	Limits Limits
}

// Limits are those of one address: of an IPv4 address, or of the /64 network that an IPv6 address is
// in. 0 is no limit.
type Limits struct {
	Connections int   // and requests at a time
	Requests    int   // in a second; ten times as many at once
	Fills       int   // blobs at a time that are fetched from a registry
	Rate        int64 // bytes in a second
}

// Site admits visitors. One Site serves all configurations of a process, so that a new configuration
// forgets no limits that visitors have reached.
type Site struct {
	// Users are those who may log in.
	Users *users.Users

	settings atomic.Pointer[Settings]
	private  privateNetworks
	now      func() time.Time

	mu        sync.Mutex
	addresses map[netip.Prefix]*address
	active    int // requests under way
}

// New returns a Site that admits no visitor until Configure is called.
func New() *Site {
	return &Site{Users: users.New(), private: newPrivateNetworks(), now: time.Now, addresses: make(map[netip.Prefix]*address)}
}

// Configure puts settings in force. It reads the file of users.
func (s *Site) Configure(settings Settings) {
	s.Users.Read(settings.Users)
	s.settings.Store(&settings)
}

// Admit returns the visit of a request's sender. The caller must call Leave after it has responded.
// The error is an [*oci.Error].
func (s *Site) Admit(r *http.Request) (*Visit, error) {
	settings := s.settings.Load()
	if settings == nil {
		return nil, &oci.Error{Code: oci.Denied, Message: "no site is configured"}
	}
	client, err := forwarded.Of(r, settings.TrustedProxies)
	if err != nil {
		return nil, &oci.Error{Code: oci.Denied, Message: "your address is unknown: " + err.Error()}
	}
	v := &Visit{Client: client, from: network(client.Addr)}
	if !s.allows(settings, client.Addr) {
		return v, &oci.Error{Code: oci.Denied, Message: fmt.Sprintf("this site does not serve your address, %v: its administrator can add it to allow in [site]", client.Addr)}
	}
	return v, s.enter(v, settings.Limits)
}

// allows reports whether an address may ask.
func (s *Site) allows(settings *Settings, addr netip.Addr) bool {
	if len(settings.Allow) > 0 {
		return forwarded.Contains(settings.Allow, addr)
	}
	return forwarded.Contains(s.private.list(), addr)
}

// Share returns which addresses share connections with the peer of a connection, how many they may have
// (0: no limit of their own), and whether their requests are refused. A trusted proxy brings many
// visitors, each of whom has limits of its own.
func (s *Site) Share(peer netip.Addr) (of netip.Prefix, most int, outside bool) {
	peer = peer.Unmap().WithZone("")
	settings := s.settings.Load()
	switch {
	case settings == nil:
		return network(peer), 1, true
	case forwarded.Contains(settings.TrustedProxies, peer):
		return network(peer), 0, false
	}
	return network(peer), settings.Limits.Connections, !s.allows(settings, peer)
}

// network returns the addresses that one visitor has: an IPv6 host chooses among those of its /64.
func network(addr netip.Addr) netip.Prefix {
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	prefix, _ := addr.Prefix(bits) // fails for more bits than an address has
	return prefix
}

// LogIn checks the login of a visitor. The error is an [*oci.Error] without a challenge.
func (s *Site) LogIn(ctx context.Context, v *Visit, in Login) (users.User, error) {
	user, err := s.Users.Check(ctx, v.from, in.Name, in.Password)
	wait, waits := errors.AsType[*users.WaitError](err)
	switch {
	case err == nil:
		v.User = user.Name
		return user, nil
	case waits:
		return user, &oci.Error{Code: oci.TooManyRequests, Message: err.Error(), RetryAfter: wait.After}
	case errors.Is(err, users.ErrUnreadable):
		return user, &oci.Error{Code: oci.Unavailable, Status: http.StatusServiceUnavailable, Message: "logins cannot be checked at the moment", Err: err}
	}
	return user, &oci.Error{Code: oci.Unauthorized, Message: err.Error()}
}
