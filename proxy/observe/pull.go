package observe

import "net/netip"

// PullKey says which requests can belong to one pull: those of one caller for one repository.
type PullKey struct {
	UID                  int64      // the caller's user; -1 if it is on another host
	Remote               netip.Addr // of a caller on another host
	Engine               string     // see [Engine]
	Registry, Repository string
}

// PullKey returns to which pulls the request can belong.
func (r *Request) PullKey() PullKey {
	key := PullKey{UID: r.UID, Engine: Engine(r.UserAgent), Registry: r.Registry, Repository: r.Repository}
	if r.UID < 0 {
		if from, err := netip.ParseAddrPort(r.Remote); err == nil {
			key.Remote = from.Addr()
		}
	}
	return key
}
