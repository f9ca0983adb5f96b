package access

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestALoginIsLentForWhatWasProvedAlone(t *testing.T) {
	t.Parallel()
	c := &clock{time.Unix(1e9, 0)}
	q := NewQuota(everywhere(login("daemon")), []string{"docker.io"})
	q.now = c.now
	home, other := upstreams[0], upstreams[1]
	one, two := digest.FromString("one"), digest.FromString("two")
	lent := func(u Upstream, repository string, d digest.Digest) bool {
		return !q.Login(t.Context(), u, repository, d).IsZero()
	}
	if lent(home, "a/b", one) {
		t.Error("a login is lent without a proof")
	}
	q.Prove(home, "a/b", one, c.at)
	if !lent(home, "a/b", one) {
		t.Error("no login is lent after a proof")
	}
	if lent(home, "a/b", two) || lent(home, "a/c", one) || lent(other, "a/b", one) {
		t.Error("a login is lent for what was not proved")
	}
	c.at = c.at.Add(proofLife - time.Second)
	if !lent(home, "a/b", one) {
		t.Error("the proof is forgotten early")
	}
	c.at = c.at.Add(time.Second)
	if lent(home, "a/b", one) {
		t.Error("the proof counts for too long")
	}
	q.Prove(home, "a/b", one, c.at)
	q.Prove(home, "a/c", one, c.at)
	q.Refute(home, "a/b")
	if lent(home, "a/b", one) || !lent(home, "a/c", one) {
		t.Error("a refusal does not count for its repository alone")
	}
}

func TestALoginIsLentToAnonymousCallersAlone(t *testing.T) {
	t.Parallel()
	q := NewQuota(everywhere(login("daemon")), []string{"docker.io"})
	if !q.Lends(stranger(t), "docker.io") {
		t.Error("none is lent to an anonymous caller")
	}
	if q.Lends(engine(t, "daemon"), "docker.io") || q.Lends(client(t, "Bearer x"), "docker.io") || q.Lends(client(t, ""), "docker.io") || q.Lends(stranger(t), "ghcr.io") {
		t.Error("one is lent to a trusted engine, to a client with a login of its own, or for another registry")
	}
	if NewQuota(nil, []string{"docker.io"}) != nil || NewQuota(everywhere(login("daemon")), nil).Lends(stranger(t), "docker.io") {
		t.Error("one is lent without logins or registries")
	}
}

func TestProofsAreBounded(t *testing.T) {
	t.Parallel()
	q := NewQuota(everywhere(login("daemon")), []string{"docker.io"})
	d := digest.FromString("one")
	for i := range maxProofs + 10 {
		q.Prove(upstreams[0], fmt.Sprint(i), d, time.Now())
	}
	if len(q.proofs) > maxProofs {
		t.Errorf("%d proofs", len(q.proofs))
	}
	if _, ok := q.Proved(upstreams[0], fmt.Sprint(maxProofs+9), d); !ok {
		t.Error("the last proof is lost")
	}
}

// The engines of this host need the login's rate limit too.
func TestAFifthOfTheRateLimitIsNotLent(t *testing.T) {
	t.Parallel()
	d := digest.FromString("one")
	for _, tt := range []struct {
		remaining, limit int64
		lent             bool
	}{
		{200, 200, true}, {41, 200, true}, {40, 200, false}, {0, 200, false}, {1, -1, true}, {0, -1, false}, {0, 0, false}, {3, 0, true},
	} {
		c := &clock{time.Unix(1e9, 0)}
		q := NewQuota(everywhere(login("daemon")), []string{"docker.io"})
		q.now = c.now
		lent := func(u Upstream) bool {
			q.Prove(u, "a/b", d, c.at)
			return !q.Login(t.Context(), u, "a/b", d).IsZero()
		}
		q.Spent(upstreams[0], tt.remaining, tt.limit)
		if got := lent(upstreams[0]); got != tt.lent {
			t.Errorf("when %d of %d requests remain, the login is lent: %v", tt.remaining, tt.limit, got)
		}
		if !lent(upstreams[1]) {
			t.Error("the limit of another upstream counts")
		}
		c.at = c.at.Add(pause)
		if !lent(upstreams[0]) {
			t.Error("the login is never lent again")
		}
	}
}
