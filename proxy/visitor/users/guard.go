package users

import (
	"net/netip"
	"time"
)

const (
	// freeTries are the wrong passwords for one user, and freeTriesInAll those for any users, that an
	// address may send before it must wait.
	freeTries      = 5
	freeTriesInAll = 20

	shortestWait = time.Second
	longestWait  = time.Minute

	// failureLife is for how long failures count after the last of them.
	failureLife = 15 * time.Minute
	maxFailures = 8192
)

// guard counts the wrong passwords of addresses, and says how long they must wait. It never counts a
// user alone: a user could then be locked out from elsewhere.
type guard struct{ failures map[source]failures }

// source is where wrong passwords come from.
type source struct {
	from netip.Prefix
	user string // "": any user
}

type failures struct {
	count int
	last  time.Time
	until time.Time // the next try is possible
}

// wait returns how long an address must wait before it may try a password for a user.
func (g *guard) wait(from netip.Prefix, user string, now time.Time) time.Duration {
	return max(g.failures[source{from, user}].until.Sub(now), g.failures[source{from, ""}].until.Sub(now), 0)
}

// failed counts a wrong password.
func (g *guard) failed(from netip.Prefix, user string, now time.Time) {
	if g.failures == nil {
		g.failures = make(map[source]failures)
	}
	for s, free := range map[source]int{{from, user}: freeTries, {from, ""}: freeTriesInAll} {
		f, known := g.failures[s]
		switch {
		case !known:
			makeRoom(g.failures, maxFailures, func(f failures) bool { return now.Sub(f.last) > failureLife })
		case now.Sub(f.last) > failureLife:
			f = failures{}
		}
		f.count++
		f.last, f.until = now, now.Add(delay(f.count-free))
		g.failures[s] = f
	}
}

// succeeded takes back the last failure of an address, which was none. The failures for other users
// stay: an attacker may have a password too.
func (g *guard) succeeded(from netip.Prefix, user string) {
	delete(g.failures, source{from, user})
	all := source{from, ""}
	f := g.failures[all]
	if f.count <= 1 {
		delete(g.failures, all)
		return
	}
	f.count--
	f.until = time.Time{}
	g.failures[all] = f
}

// delay returns how long an address waits after failures that are too many.
func delay(excess int) time.Duration {
	if excess < 0 {
		return 0
	}
	wait := shortestWait
	for range excess {
		if wait *= 2; wait >= longestWait {
			return longestWait
		}
	}
	return wait
}
