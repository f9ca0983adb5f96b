package upstream

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	// maxRefusedLogins bounds the refused logins of one upstream.
	maxRefusedLogins = 16
	// refusedFor is how long a refusal is reported after the last request that met it.
	refusedFor = time.Hour
)

// RefusedLogin is a login of the daemon's that an upstream refused when it was last sent.
type RefusedLogin struct {
	Upstream   *url.URL
	Repository string // the one that was asked for
	Generation string // of the credential
	Reason     string // what the upstream or its token server said
	Last       time.Time
}

// logins records which logins an upstream was sent, and which of them it refused.
type logins struct {
	last atomic.Pointer[string] // the generation that was accepted last

	some    atomic.Bool // there is a refusal
	mu      sync.Mutex
	refused map[string]RefusedLogin // by generation
}

// note records the outcome of a request that was sent with a.
func (l *logins) note(u *url.URL, a *auth.Access, repository string, resp *http.Response, err error) {
	if a == nil || a.Credential.Generation == "" {
		return
	}
	generation := a.Credential.Generation
	var refusal *oci.Error
	switch {
	case err != nil && errors.As(err, &refusal) && (refusal.Code == oci.Unauthorized || refusal.Code == oci.Denied):
		l.refuse(RefusedLogin{Upstream: u, Repository: repository, Generation: generation, Reason: refusal.Message, Last: time.Now()})
	case err != nil:
	case resp.StatusCode == http.StatusUnauthorized:
		l.refuse(RefusedLogin{Upstream: u, Repository: repository, Generation: generation, Reason: u.Host + " responded " + resp.Status, Last: time.Now()})
	case resp.StatusCode < http.StatusBadRequest || resp.StatusCode == http.StatusNotFound:
		if known := l.last.Load(); known == nil || *known != generation {
			l.last.Store(&generation)
		}
		if l.some.Load() {
			l.accept(generation)
		}
	}
}

func (l *logins) refuse(r RefusedLogin) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refused == nil || len(l.refused) >= maxRefusedLogins {
		l.refused = map[string]RefusedLogin{}
	}
	if before, known := l.refused[r.Generation]; known {
		r.Reason = before.Reason // later ones say only that it is held back
	}
	l.refused[r.Generation] = r
	l.some.Store(true)
}

func (l *logins) accept(generation string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.refused, generation)
	l.some.Store(len(l.refused) > 0)
}

// RefusedLogins returns the logins that the upstream refused when they were last sent.
func (u *Upstream) RefusedLogins() (list []RefusedLogin) {
	u.logins.mu.Lock()
	defer u.logins.mu.Unlock()
	for _, r := range u.logins.refused {
		if time.Since(r.Last) < refusedFor {
			list = append(list, r)
		}
	}
	return list
}

// LoginSource returns the kind of source that the login came from which the upstream accepted last:
// "store", "file", "helper" and so on; "" if it has accepted none.
func (u *Upstream) LoginSource() string {
	generation := u.logins.last.Load()
	if generation == nil {
		return ""
	}
	kind, _, _ := strings.Cut(*generation, ":")
	return kind
}
