package proxy

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

const (
	maxRefusals     = 1024
	maxRefusalItems = 2 << 10 // bytes of an upstream's own errors that are remembered
	refusalLife     = 10 * time.Second
)

// refusals remember what which caller was refused a moment ago. An engine that is refused asks up to
// five times, and a client without a login asks for a token: the upstream is asked once. Callers
// without a login share a name. So a refusal is about what was asked for and nothing else of the
// repository: a registry may refuse lists, or a single image, to everyone.
type refusals struct {
	mu     sync.Mutex
	stored map[string]recentRefusal
}

type recentRefusal struct {
	err   *oci.Error
	until time.Time
}

// refusalKeys returns the names under which a refusal of r is remembered, and first the one under which
// one of r is found. A client asks for a token for the repository, after it was refused its content.
func (r *request) refusalKeys() []string {
	switch r.Kind {
	case oci.Token:
		return []string{r.fillName()}
	case oci.Manifest, oci.Blob:
		return []string{r.fillName() + " " + r.Path(), r.fillName()}
	}
	return []string{r.fillName() + " " + r.Path()}
}

// recent returns the error with which r's caller was just refused, nil if it was not.
func (f *refusals) recent(r *request) *oci.Error {
	if r.Repository == "" {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	known, ok := f.stored[r.refusalKeys()[0]]
	if !ok || !time.Now().Before(known.until) {
		return nil
	}
	again := *known.err
	return &again
}

// note remembers a refusal. It leaves out those that the next request of the same caller may
// change: of a login of the daemon's, which may be renewed, and of a client of relay mode that has
// sent no token yet. A 401 where no challenge was ever sent is no registry's: a portal's may be over
// at once.
func (f *refusals) note(r *request, e *oci.Error) {
	if r.caller.Login() || r.caller.Unread() != nil || r.unanswered() || !r.challenged() {
		return
	}
	refused := *e
	refused.Challenge = "" // it depends on how the caller names the registry
	size := 0
	for _, item := range refused.Passed {
		size += len(item.Code) + len(item.Message) + len(item.Detail)
	}
	if size > maxRefusalItems { // untrusted callers may make many
		refused.Passed = nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range r.refusalKeys() {
		if known, ok := f.stored[key]; ok && time.Now().Before(known.until) {
			continue // it must end, also for a caller that asks all the time
		}
		if f.stored == nil || len(f.stored) >= maxRefusals {
			f.stored = map[string]recentRefusal{}
		}
		f.stored[key] = recentRefusal{&refused, time.Now().Add(refusalLife)}
	}
}

// challenged reports whether one of the upstreams asks for logins at all.
func (r *request) challenged() bool {
	return slices.ContainsFunc(r.registry.pool, func(u *upstream.Upstream) bool { return u.Challenged(r.as(u)) })
}

// unanswered reports whether the caller answers challenges itself and has answered none yet.
func (r *request) unanswered() bool {
	for _, u := range r.registry.upstreams {
		if id := r.caller.At(u.Name); id.Relay && id.Authorization.IsZero() {
			return true
		}
	}
	return false
}

// afterRefusal returns the error to respond with. If an upstream has refused a caller that may log
// in itself, the response leads it to sidemirror's token endpoint: also where the upstream's was a
// 403, on which no engine would send the login that it has.
func (p *Proxy) afterRefusal(r *request, err error) error {
	e, ok := errors.AsType[*oci.Error](err)
	if !ok || r.Kind == oci.Token || e.Code != oci.Unauthorized && e.Code != oci.Denied || e.Challenge != "" {
		return err
	}
	answered := *e
	answered.Challenge = r.challenge()
	if e.Code == oci.Denied {
		if answered.Challenge == "" || !r.mayLogIn() {
			return err
		}
		answered.Code, answered.Status = oci.Unauthorized, 0
	}
	if r.Repository != "" {
		p.refusals.note(r, &answered)
	}
	return &answered
}

// mayLogIn reports whether the caller has been refused without a login and may send one of its own.
func (r *request) mayLogIn() bool {
	for _, u := range r.registry.upstreams {
		if id := r.caller.At(u.Name); id.MayLogIn && id.Authorization.IsZero() {
			return true
		}
	}
	return false
}

// challenge returns the challenge for a caller that may answer it, empty if there is none.
func (r *request) challenge() string {
	named := r.Form == oci.ByNamespace || r.Form == oci.ByHost
	for _, u := range r.registry.pool {
		id := r.caller.At(u.Name())
		if !id.Relay && !id.MayLogIn {
			continue
		}
		if c := u.ClientChallenge(r.as(u), r.ownRealm(), r.localRepository(), named); c != "" {
			return c
		}
	}
	return ""
}
