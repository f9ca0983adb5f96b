package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// maxReason bounds what an upstream said about a login.
const maxReason = 200

// Problems returns what is wrong with the logins: sources that cannot be read, programs that fail,
// and logins that a registry refused.
func (p *registryProxy) Problems() []*problem.Problem {
	var list []*problem.Problem
	for _, s := range p.logins.sources {
		list = append(list, s.problems()...)
	}
	for _, r := range p.RefusedLogins() {
		list = append(list, refusedProblem(r))
	}
	return list
}

// RefusedLogins returns the logins in use that a registry refused.
func (p *registryProxy) RefusedLogins() (list []upstream.RefusedLogin) {
	_, refused := p.Logins()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, r := range refused {
		if p.logins.inUse(ctx, r) {
			list = append(list, r)
		}
	}
	return list
}

// LoginsInUse returns the logins that upstreams have accepted.
func (p *registryProxy) LoginsInUse() (list []state.Login) {
	inUse, _ := p.Logins()
	for _, l := range inUse {
		list = append(list, state.Login{Host: l.Host, Source: l.Source})
	}
	return list
}

// inUse reports whether the login that was refused is the one that the next request would be sent
// with. It runs no program for that: what those return is renewed when they are asked again.
func (l *logins) inUse(ctx context.Context, r upstream.RefusedLogin) bool {
	kind, _, _ := strings.Cut(r.Generation, ":")
	if kind == "helper" || kind == "plugin" {
		return true
	}
	for _, s := range l.sources[:l.files] {
		c, err := credential.LookupFor(ctx, s.faulty, r.Upstream, r.Repository)
		if err == nil && !c.IsZero() {
			return c.Generation == r.Generation
		}
	}
	return false
}

// loginHints say what to do about a refused login, by the kind of its source.
var loginHints = map[string]string{
	"store":       "sidemirror login ",
	"file":        "correct the file that credentials.files names, or run: sidemirror login ",
	"systemd":     "correct the credential that the unit loads and restart sidemirror, or run: sidemirror login ",
	"environment": "correct DOCKER_AUTH_CONFIG in the unit and restart sidemirror, or run: sidemirror login ",
}

func refusedProblem(r upstream.RefusedLogin) *problem.Problem {
	kind, _, _ := strings.Cut(r.Generation, ":")
	hint := "check what the credential " + kind + " returns, and what rights that account has"
	if known, ok := loginHints[kind]; ok {
		registry, _ := credential.KeyOf(r.Upstream)
		hint = known + registry
	}
	reason := r.Reason
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	where := r.Upstream.Host
	if r.Repository != "" {
		where += "/" + r.Repository
	}
	return &problem.Problem{
		Code: "login-refused", Hint: hint,
		Text: fmt.Sprintf("the login for %s was refused and is not tried again at each pull (source: %s): %s", where, kind, reason),
	}
}
