package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/observe"
	"github.com/sidemirror/sidemirror/proxy/shared"
	"github.com/sidemirror/sidemirror/proxy/transfer"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

const (
	// claimFrom is how large a blob must be to be claimed. Smaller ones come before a claim would.
	claimFrom = 4 << 20

	// claimPatience is how long a host waits for another one that has claimed a blob.
	claimPatience = 5 * time.Second

	// claimGrace is how long the store may take to respond after a registry has; a blob of a store that
	// takes longer is not claimed.
	claimGrace = 200 * time.Millisecond

	// proofPatience is how long a claim may wait for the proof that everyone may read a blob.
	proofPatience = 250 * time.Millisecond

	// publicLife is for how long it is remembered whether everyone may read a blob.
	publicLife = 10 * time.Minute
	maxPublic  = 16384
)

// errInSharedStore says that another host has uploaded a blob while this one waited.
var errInSharedStore = errors.New("another host has uploaded the blob to the shared store")

// share uploads r's blob, which has just been stored, in the background. What untrusted callers fetch is
// not uploaded: they could fill the store.
func (p *Proxy) share(r *request, from string) {
	u := r.registry.upstream(from)
	if p.shared == nil || u == nil || !r.caller.Trusted {
		return
	}
	c, err := p.cache.Stored(r.Digest, false)
	if err != nil {
		return // it is gone again
	}
	p.shared.Upload(shared.Upload{
		Digest:  r.Digest,
		Size:    c.Size,
		Allowed: func(ctx context.Context) bool { return p.mayShare(ctx, r, u) },
		Open: func() (shared.File, error) {
			b, err := p.cache.Blob(r.Digest, true)
			if err != nil {
				return nil, err
			}
			return b, nil
		},
	})
}

// mayShare reports whether r's blob, which an upstream has sent r's caller, may be uploaded: everyone
// may read it, or the configuration allows what is private.
func (p *Proxy) mayShare(ctx context.Context, r *request, u *upstream.Upstream) bool {
	return p.sharePrivate || r.caller.At(u.Name()).Anonymous() || p.public.proved(ctx, r)
}

// herdOf returns what makes r's fetch wait for another host that fetches the same blob; nil if it should
// not. A store that has not responded to the question for the blob, which store asks, is not asked for a
// claim.
func (p *Proxy) herdOf(r *request, store *fill) func(ctx context.Context, u *upstream.Upstream, part transfer.Part) bool {
	if !r.caller.Trusted || !p.shared.Uploads() {
		return nil
	}
	return func(ctx context.Context, u *upstream.Upstream, part transfer.Part) bool {
		if part.Start != 0 || part.Total < claimFrom || !store.respondsWithin(claimGrace) {
			return false
		}
		soon, cancel := context.WithTimeout(ctx, proofPatience)
		defer cancel()
		// A claim has the digest in its name, and so must not be made for what is private.
		return p.mayShare(soon, r, u) && p.shared.Claim(ctx, r.Digest, claimPatience)
	}
}

// public remembers which blobs everyone may read.
type public struct {
	mu    sync.Mutex
	known map[publicKey]proof
}

type publicKey struct {
	registry, repository string
	blob                 digest.Digest
}

type proof struct {
	at     time.Time
	public bool
}

// proved reports whether everyone may read r's blob: it is asked for without a login.
func (k *public) proved(ctx context.Context, r *request) bool {
	key := publicKey{r.Registry, r.Repository, r.Digest}
	k.mu.Lock()
	known, ok := k.known[key]
	k.mu.Unlock()
	if ok && time.Since(known.at) < publicLife {
		return known.public
	}
	anonymous := *r
	anonymous.caller, anonymous.quota, anonymous.anew = access.Caller{}, nil, true
	d, _, err := anonymous.describeBlob(ctx, &accessLine{}, false)
	if ctx.Err() != nil {
		return false
	}
	now := proof{time.Now(), err == nil && d.proves(r.Digest, -1)}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.add(key, now)
	return now.public
}

// add remembers a proof. k.mu is held.
func (k *public) add(key publicKey, now proof) {
	if k.known == nil {
		k.known = map[publicKey]proof{}
	}
	if len(k.known) >= maxPublic {
		for old, p := range k.known {
			if now.at.Sub(p.at) >= publicLife {
				delete(k.known, old)
			}
		}
	}
	for old := range k.known {
		if len(k.known) < maxPublic {
			break
		}
		delete(k.known, old)
	}
	k.known[key] = now
}

// SharedProblems returns what is wrong with the shared store.
func (p *Proxy) SharedProblems() []*problem.Problem {
	if p.shared == nil {
		return nil
	}
	return p.shared.Problems()
}

// SharedStats returns what happened between this host and the shared store; ok is false if there is
// none.
func (p *Proxy) SharedStats() (stats observe.Shared, ok bool) {
	if p.shared == nil {
		return stats, false
	}
	return p.shared.Stats(), true
}
