package shared

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"
)

const (
	// claimLife is how long a claim counts. Then its host has failed, or is very slow. The store's own
	// clock decides.
	claimLife = 30 * time.Second

	// claimTimeout bounds a request about a claim: a client waits meanwhile.
	claimTimeout = time.Second

	// Whether a blob has come is asked every pollEvery, more or less.
	pollEvery = 150 * time.Millisecond

	maxClaims = 1024

	// vainWaits is how many waits in a row may bring nothing. After that no claim is made or waited for
	// during a pause, which is twice as long each time.
	vainWaits          = 2
	shortestClaimPause = claimLife
	longestClaimPause  = 5 * time.Minute
)

// claims are those that this host has made and not given up, and what waiting for those of others has
// brought.
type claims struct {
	mu   sync.Mutex
	made map[digest.Digest]time.Time

	vain   int       // waits in a row
	latest time.Time // when the last of them ended
	pause  time.Duration
	until  time.Time
}

// paused reports whether waiting was of no use lately: the claims are false, or never given up, or the
// store responds to no question about them.
func (c *claims) paused(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Before(c.until)
}

// waited records that a pull has waited from began until now, and whether that was of use. Several at
// the same time count once: an engine asks for three layers at a time.
func (c *claims) waited(began, now time.Time, useful bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case useful:
		c.vain, c.pause = 0, 0
	case !began.Before(c.latest):
		c.latest = now
		if c.vain++; c.vain >= vainWaits {
			c.pause = min(max(2*c.pause, shortestClaimPause), longestClaimPause)
			c.until = now.Add(c.pause)
		}
	}
}

func (c *claims) add(d digest.Digest, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		c.made = map[digest.Digest]time.Time{}
	}
	for old, at := range c.made {
		if len(c.made) >= maxClaims || now.Sub(at) > claimLife {
			delete(c.made, old)
		}
	}
	c.made[d] = now
}

func (c *claims) has(d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.made[d]
	return ok
}

func (c *claims) remove(d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.made[d]
	delete(c.made, d)
	return ok
}

// Claim claims a blob for this host, which then fetches and uploads it. If another host has claimed it,
// Claim waits at most for patience until that host has uploaded it. It reports whether the store has the
// blob now. If it has not, the caller fetches it from a registry.
func (s *Store) Claim(ctx context.Context, d digest.Digest, patience time.Duration) bool {
	began := time.Now()
	if !s.Uploads() || s.uploads.fault() != nil || s.breaker.fault() != nil || s.uploads.claims.paused(began) {
		return false
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found, now := s.claimOrWait(waiting, d), time.Now()
	if ctx.Err() == nil && (found || now.Sub(began) >= claimTimeout) {
		s.uploads.claims.waited(began, now, found)
	}
	return found
}

func (s *Store) claimOrWait(ctx context.Context, d digest.Digest) (found bool) {
	won, err := s.claim(ctx, d)
	if err != nil {
		return false // then there is no order, and hosts fetch it at the same time
	}
	if won {
		// Another host may have uploaded it, and given up its claim, since this one has looked.
		if !s.has(ctx, d) {
			s.uploads.claims.add(d, time.Now())
			return false
		}
		s.work.Go(func() { s.unclaim(d) })
		return true
	}
	s.counts.waits.Add(1)
	return s.await(ctx, d)
}

// claim makes a claim, if there is no other one that counts.
func (s *Store) claim(ctx context.Context, d digest.Digest) (won bool, err error) {
	for range 2 {
		err = s.put(ctx, s.claimKey(d), "claimed\n")
		if err == nil || !isPresent(err) {
			return err == nil, err
		}
		if live, err := s.claimed(ctx, d); live || err != nil {
			return false, err
		}
		s.unclaim(d) // its host has failed
	}
	return false, nil
}

// put writes a small object, unless there is one of that name.
func (s *Store) put(ctx context.Context, key, text string) error {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	opts := minio.PutObjectOptions{DisableMultipart: true, ContentType: "text/plain", DisableContentSha256: true}
	opts.SetMatchETagExcept("*")
	err := s.bucket.put(ctx, key, strings.NewReader(text), int64(len(text)), opts)
	return err
}

// claimed reports whether there is a claim that counts.
func (s *Store) claimed(ctx context.Context, d digest.Digest) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	body, info, header, err := s.bucket.get(ctx, s.claimKey(d), minio.GetObjectOptions{})
	if isMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_ = body.Close()
	now, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	age := now.Sub(info.LastModified)
	return age > -claimLife && age < claimLife, nil // one from the future would count for ever
}

// unclaim gives up a claim, also while the store is closed: other hosts may wait.
func (s *Store) unclaim(d digest.Digest) {
	ctx, cancel := context.WithTimeout(context.Background(), claimTimeout)
	defer cancel()
	_ = s.bucket.remove(ctx, s.claimKey(d)) // it expires
}

// await waits until the store has a blob, the claim for it is gone, or ctx is done.
func (s *Store) await(ctx context.Context, d digest.Digest) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pollEvery/2 + rand.N(pollEvery)):
		}
		if s.has(ctx, d) {
			return true
		}
		if live, err := s.claimed(ctx, d); !live || err != nil {
			return ctx.Err() == nil && s.has(ctx, d)
		}
	}
}

// has reports whether the store has a blob.
func (s *Store) has(ctx context.Context, d digest.Digest) bool {
	err := s.bucket.stat(ctx, s.blobKey(d))
	return err == nil
}
