package access

import (
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

const (
	grantLife       = 5 * time.Minute
	opaqueGrantLife = time.Minute      // of a bearer token that does not say when it ends
	awayLife        = 10 * time.Second // of an older grant, once its upstream could not be asked
	maxGrants       = 16384

	// recordEvery is how often a grant that is renewed is written to its record again.
	recordEvery = 10 * time.Minute
)

// Records are grants on disk, which count while an upstream is away. [cache.Dir] implements
// it.
type Records interface {
	Grant(r cache.Repository, upstream, who string, at time.Time, untrusted bool) error
	Granted(r cache.Repository, upstream, who string) time.Time
	Ungrant(r cache.Repository, upstream, who string)
}

// Grants remember what each upstream has let each identity have.
//
// A grant names an upstream, a repository and an identity. Only a validated answer for
// content makes one. It lives for five minutes, and no longer than the token of a bearer. It
// covers what the repository was known to hold when the upstream was asked and what the same identity
// has learned: content that another identity learns later needs another word of the
// upstream, since the repository may have become private in between.
type Grants struct {
	records  Records
	maxStale time.Duration
	now      func() time.Time

	mu   sync.Mutex
	live map[grantKey]grant
}

type grantKey struct {
	repository         cache.Repository
	upstream, identity string
}

type grant struct {
	made, until, recorded time.Time
	refused               time.Time // the upstream has refused the identity since; zero if it has not
}

// NewGrants returns an empty set of grants. records stores them for when an upstream is away,
// up to maxStale.
func NewGrants(records Records, maxStale time.Duration) *Grants {
	return &Grants{records: records, maxStale: maxStale, now: time.Now, live: map[grantKey]grant{}}
}

// Allow records that the upstream has given content of r to the caller, which it was asked for at that
// time. What it has said since then counts for more: a response that takes long is no newer for it.
func (g *Grants) Allow(c Caller, r cache.Repository, upstream string, asked time.Time) {
	id := c.At(upstream)
	key := grantKey{r, upstream, id.name}
	now := g.now()
	if asked.After(now) { // the clock was set back
		asked = now
	}
	until := asked.Add(grantLife)
	if id.bearer && id.until.IsZero() {
		until = asked.Add(opaqueGrantLife)
	} else if id.bearer && id.until.Before(until) {
		until = id.until
	}
	g.mu.Lock()
	g.makeRoom(now)
	old := g.live[key]
	if asked.Before(old.refused) || asked.Before(old.made) && now.Before(old.until) {
		g.mu.Unlock()
		return
	}
	recorded := old.recorded
	due := !id.bearer && asked.Sub(recorded) >= recordEvery
	if due {
		recorded = asked
	}
	g.live[key] = grant{made: asked, until: until, recorded: recorded}
	g.mu.Unlock()
	if due {
		_ = g.records.Grant(r, upstream, id.name, asked, !c.Trusted) // a lost record is asked for again
	}
}

// makeRoom removes grants if there are too many: of a few, those that have ended, and
// otherwise one. A grant that is lost costs one request.
func (g *Grants) makeRoom(now time.Time) {
	const looks = 16
	left := looks
	for k, old := range g.live {
		if len(g.live) < maxGrants {
			return
		}
		if left--; left <= 0 || !now.Before(old.until) {
			delete(g.live, k)
		}
	}
}

// Revoke records that the upstream has just refused the caller r.
func (g *Grants) Revoke(c Caller, r cache.Repository, upstream string) {
	id := c.At(upstream)
	now := g.now()
	g.mu.Lock()
	g.makeRoom(now)
	// Until then a request that was sent before may still be responded to.
	g.live[grantKey{r, upstream, id.name}] = grant{refused: now, until: now.Add(grantLife)}
	g.mu.Unlock()
	if !id.bearer {
		g.records.Ungrant(r, upstream, id.name)
		g.records.Ungrant(r, upstream, id.name+forLists)
	}
}

// forLists marks the record of a grant for lists of tags and referrers, which opens no content.
const forLists = " lists"

// AllowList records that the upstream has just given the caller a list of r. That is no grant
// for content: a mirror may answer anything to a request for a list.
func (g *Grants) AllowList(c Caller, r cache.Repository, upstream string) {
	if id := c.At(upstream); !id.bearer {
		_ = g.records.Grant(r, upstream, id.name+forLists, g.now(), !c.Trusted)
	}
}

// MayListWhileAway reports whether the caller may have a list of r although its upstream
// cannot be asked: only what the upstream told the same identity, and has not refused it
// since.
func (g *Grants) MayListWhileAway(c Caller, r cache.Repository, known cache.Learned) bool {
	id := c.At(known.Upstream)
	if !c.knows(known.Upstream) || id.Recorded() == "" || id.Recorded() != known.By {
		return false
	}
	return g.recent(g.records.Granted(r, known.Upstream, id.name+forLists))
}

// May reports whether the caller may have content of r without asking, given how the content
// is known.
func (g *Grants) May(c Caller, r cache.Repository, known cache.Learned) bool {
	if !c.knows(known.Upstream) {
		return false
	}
	id := c.At(known.Upstream)
	g.mu.Lock()
	live, ok := g.live[grantKey{r, known.Upstream, id.name}]
	g.mu.Unlock()
	return ok && live.refused.IsZero() && g.now().Before(live.until) && covers(id, live.made, known)
}

// MayWhileAway reports whether the caller may have content of r although its upstream cannot
// be asked: whether the upstream let it have content of r no longer than max_stale ago. That
// never holds for a caller's own token, which only the upstream could check. For a few seconds
// the answer holds for other content of r that the older grant covers.
func (g *Grants) MayWhileAway(c Caller, r cache.Repository, known cache.Learned) bool {
	if !c.knows(known.Upstream) {
		return false
	}
	id := c.At(known.Upstream)
	if id.bearer {
		return false
	}
	made := g.records.Granted(r, known.Upstream, id.name)
	if !g.recent(made) || !covers(id, made, known) {
		return false
	}
	// The next layers of the same image should not wait for the same upstream again.
	key, now := grantKey{r, known.Upstream, id.name}, g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if old, ok := g.live[key]; !ok || !now.Before(old.until) {
		g.makeRoom(now)
		g.live[key] = grant{made: made, until: now.Add(awayLife), recorded: old.recorded}
	}
	return true
}

// recent reports whether a grant made then counts while an upstream is away.
func (g *Grants) recent(made time.Time) bool {
	age := g.now().Sub(made)
	return !made.IsZero() && age >= 0 && age < g.maxStale
}

// covers reports whether a grant that was made then covers what is known.
func covers(id Identity, made time.Time, known cache.Learned) bool {
	if name := id.Recorded(); name != "" && name == known.By {
		return true
	}
	return !known.Since.After(made)
}
