package access

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

const (
	// proofLife is how long a manifest counts as readable by anyone after it was so.
	proofLife = 10 * time.Minute
	maxProofs = 16384

	// reserve is the part of a login's rate limit that is not lent: one of so many. The engines of this
	// host need it. pause is for how long nothing is lent once only the reserve remains.
	reserve = 5
	pause   = 15 * time.Minute
)

// Quota lends the daemon's logins to anonymous callers, for the sake of the rate limit that a login
// has. It lends none for a manifest that was not proved to be readable by anyone: by a response to a
// request without a login. The proof is about one manifest of one repository at one upstream, so that
// what is pushed to a repository after it has become private needs a proof of its own, which it does
// not get. Blobs are always asked for without a login: no registry counts them.
//
// A nil Quota lends nothing.
type Quota struct {
	registries  []string
	credentials credential.Source
	now         func() time.Time

	mu     sync.Mutex
	proofs map[proof]time.Time  // when they were made
	paused map[string]time.Time // by upstream, until when
}

type proof struct {
	upstream, repository string
	manifest             digest.Digest
}

// NewQuota returns a Quota of the logins for some registries. It returns nil if there are none.
func NewQuota(credentials credential.Source, registries []string) *Quota {
	if credentials == nil || len(registries) == 0 {
		return nil
	}
	return &Quota{registries: registries, credentials: credentials, now: time.Now, proofs: make(map[proof]time.Time), paused: make(map[string]time.Time)}
}

// Lends reports whether the login for a registry may be lent to a caller: one that is not trusted, and
// for whom no upstream is asked with an Authorization of its own.
func (q *Quota) Lends(c Caller, registry string) bool {
	return q != nil && !c.Trusted && slices.Contains(q.registries, registry) &&
		!slices.ContainsFunc(c.identities, func(n named) bool { return n.identity.name != anonymous || n.identity.Relay })
}

// Prove records that an upstream, which was asked at that time, has shown a manifest of a repository to a
// caller without a login.
func (q *Quota) Prove(u Upstream, repository string, manifest digest.Digest, asked time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	if len(q.proofs) >= maxProofs {
		for p, made := range q.proofs {
			if now.Sub(made) >= proofLife {
				delete(q.proofs, p)
			}
		}
	}
	for p := range q.proofs {
		if len(q.proofs) < maxProofs {
			break
		}
		delete(q.proofs, p)
	}
	q.proofs[proof{u.Name, repository, manifest}] = asked
}

// Refute forgets what is known of a repository: the upstream has refused it to a caller without a login.
func (q *Quota) Refute(u Upstream, repository string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.proofs {
		if p.upstream == u.Name && p.repository == repository {
			delete(q.proofs, p)
		}
	}
}

// Proved reports whether the manifest was proved to be readable by anyone, not long ago, and when the
// upstream was asked for that.
func (q *Quota) Proved(u Upstream, repository string, manifest digest.Digest) (asked time.Time, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	asked, ok = q.proofs[proof{u.Name, repository, manifest}]
	return asked, ok && q.now().Sub(asked) < proofLife
}

// Spent records how many requests with the login an upstream still serves, and of how many; limit is
// negative if that is unknown.
func (q *Quota) Spent(u Upstream, remaining, limit int64) {
	if remaining > max(limit, 0)/reserve {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.paused[u.Name] = q.now().Add(pause)
}

// lendsAt reports whether more than the reserve remains at an upstream, as far as is known.
func (q *Quota) lendsAt(u Upstream) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.now().Before(q.paused[u.Name])
}

// Login returns the daemon's login for a manifest at an upstream; zero if there is none, or if the
// manifest was not proved to be readable by anyone, or if only the reserve of its rate limit remains.
func (q *Quota) Login(ctx context.Context, u Upstream, repository string, manifest digest.Digest) credential.Credential {
	if _, proved := q.Proved(u, repository, manifest); !proved || !q.lendsAt(u) {
		return credential.Credential{}
	}
	login, err := credential.LookupFor(ctx, q.credentials, u.URL, repository)
	if err != nil {
		return credential.Credential{} // anonymous access is enough; others report the problem
	}
	return login
}
