package proxy

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/cache"
)

const (
	grantLife       = 5 * time.Minute
	opaqueGrantLife = time.Minute // of a bearer token that does not say when it ends
	maxGrants       = 16384
)

// identity is in whose name an upstream is asked: anonymously, with a credential of
// the daemon's, or with a client's own token.
type identity struct {
	name   string // as the cache records it; of a bearer, only in memory
	bearer bool
	until  time.Time // of a bearer: when its token ends, if it says so
}

const anonymous = "anonymous"

// identify says in whose name c asks.
func (p *Proxy) identify(c *call) identity {
	if c.access != nil {
		cred := c.access.Credential
		if cred.IsZero() {
			return identity{name: anonymous}
		}
		return identity{name: p.cache.Identity(c.Registry, cred.Username, cred.Password.Reveal(), cred.IdentityToken.Reveal())}
	}
	header := c.http.Header.Get("Authorization")
	if header == "" {
		return identity{name: anonymous}
	}
	return identity{name: auth.Fingerprint(header), bearer: true, until: tokenEnd(header)}
}

// tokenEnd reads when a token ends from the token itself, if it is a JWT (RFC 7519,
// 4.1.4). It is believed only where it shortens something, so that the signature
// does not matter.
func tokenEnd(header string) time.Time {
	parts := strings.Split(header, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c struct {
		Exp int64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(claims, &c) != nil || c.Exp <= 0 {
		return time.Time{}
	}
	return time.Unix(c.Exp, 0)
}

// grants remembers what upstreams let whom have (security.md §3): the cache widens
// nobody's access. Any answer of 2xx makes a grant for its repository; it lives five
// minutes, and a bearer's no longer than its token.
type grants struct {
	mu   sync.Mutex
	kept map[grantKey]time.Time // until when
}

type grantKey struct {
	repository cache.Repository
	identity   string
}

// grant notes that an upstream has let c's identity have something.
func (p *Proxy) grant(c *call) {
	if p.cache == nil {
		return
	}
	now := time.Now()
	until := now.Add(grantLife)
	if c.identity.bearer {
		if end := c.identity.until; end.IsZero() {
			until = now.Add(opaqueGrantLife)
		} else if end.Before(until) {
			until = end
		}
	} else {
		_ = p.cache.Grant(c.repository(), c.identity.name) // lost, it is asked for again
	}
	p.grants.put(grantKey{c.repository(), c.identity.name}, until, now)
}

func (g *grants) put(key grantKey, until, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.kept == nil {
		g.kept = map[grantKey]time.Time{}
	}
	if len(g.kept) >= maxGrants {
		for k, t := range g.kept {
			if t.Before(now) {
				delete(g.kept, k)
			}
		}
		for k := range g.kept {
			if len(g.kept) < maxGrants {
				break
			}
			delete(g.kept, k)
		}
	}
	g.kept[key] = until
}

// granted reports whether c's identity has a live grant.
func (p *Proxy) granted(c *call) bool {
	p.grants.mu.Lock()
	defer p.grants.mu.Unlock()
	return time.Now().Before(p.grants.kept[grantKey{c.repository(), c.identity.name}])
}

// stretched reports whether c's identity had a grant that still counts while the
// upstream is away. A bearer's never does.
func (p *Proxy) stretched(c *call) bool {
	return !c.identity.bearer && time.Since(p.cache.Granted(c.repository(), c.identity.name)) < p.freshness.MaxStale
}

// ungrant takes back what an upstream now refuses.
func (p *Proxy) ungrant(c *call) {
	if p.cache == nil {
		return
	}
	p.grants.mu.Lock()
	delete(p.grants.kept, grantKey{c.repository(), c.identity.name})
	p.grants.mu.Unlock()
	if !c.identity.bearer {
		p.cache.Ungrant(c.repository(), c.identity.name)
	}
}

// note draws from an upstream's answer, or from its refusal, what it says of c's
// grant.
func (p *Proxy) note(c *call, err error) {
	switch status := upstreamStatus(err); {
	case err == nil:
		p.grant(c)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		p.ungrant(c)
	}
}
