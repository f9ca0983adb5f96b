package peer

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sidemirror/sidemirror/proxy/peer/cgroup"
)

// Trust says which callers are trusted. A caller is, if the configuration names its user and the
// unit that its socket was made in. Processes of containers are never trusted, since root in a
// container that uses the host's network has the same user id as root.
//
// On hosts where the kernel does not tell units apart, the user alone decides; see [Trust.Weakness].
type Trust struct {
	uids    []uint32
	units   cgroup.Units
	groups  *cgroup.Hierarchy
	refused *Refusals
}

// thisHost is shared, so that each group is looked up once, however often the configuration changes.
var thisHost = sync.OnceValue(cgroup.Host)

// unreported is set once a caller was found whose control group the kernel does not report.
var unreported atomic.Bool

// NewTrust returns the Trust for users and units, which [cgroup.NewUnits] explains. It records the
// callers that it does not trust in refused, which may be nil.
func NewTrust(uids []uint32, units []string, refused *Refusals) *Trust {
	return &Trust{uids: uids, units: cgroup.NewUnits(units), groups: thisHost(), refused: refused}
}

// Trusts reports whether c is trusted. A group that cannot be found is not.
func (t *Trust) Trusts(c Caller) bool {
	if !slices.Contains(t.uids, c.UID) {
		return false
	}
	if c.Cgroup == 0 {
		unreported.Store(true)
		return true
	}
	path, found := t.groups.Path(c.Cgroup)
	if !t.groups.Complete() {
		return !found || !cgroup.OfContainer(path)
	}
	return found && t.units.Include(path)
}

// Weakness returns why units do not count on this host, or "" if they do.
func (t *Trust) Weakness() string {
	switch {
	case !t.groups.Complete():
		return "this host uses version 1 of control groups, where the kernel does not say which unit a connection comes from"
	case unreported.Load():
		return "this kernel does not say which control group a connection comes from, as Linux does since 5.8"
	}
	return ""
}

// describe returns what is known of a caller that is not trusted.
func (t *Trust) describe(c Caller, r refusal) Refusal {
	path, _ := t.groups.Path(c.Cgroup)
	return Refusal{
		UID: c.UID, Group: path, Named: slices.Contains(t.uids, c.UID), Container: cgroup.OfContainer(path),
		Requests: r.requests, Last: r.last,
	}
}
