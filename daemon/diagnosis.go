package daemon

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/sidemirror/sidemirror/daemon/activity"
	"github.com/sidemirror/sidemirror/daemon/admin"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// diagnosing is a service that can examine its registries.
type diagnosing interface {
	Diagnose(ctx context.Context, registry string) ([]admin.Diagnosis, error)
}

// Diagnose implements [admin.Daemon] by the configuration in force. An upstream that is sound gets a
// last step about its rate limit, which is known from the pulls of the last hours.
func (d *daemon) Diagnose(ctx context.Context, registry string) ([]admin.Diagnosis, error) {
	s, ok := d.handler.get().service.(diagnosing)
	if !ok {
		return nil, &problem.Problem{Code: "configuration-not-in-force", Text: "sidemirror has no configuration that can be used", Hint: "sidemirror config check"}
	}
	list, err := s.Diagnose(ctx, registry)
	if err != nil {
		return nil, err
	}
	limits := d.activity.Activity(time.Now()).RateLimits
	for i, found := range list {
		broken := func(s admin.Step) bool { return s.Problem != nil }
		if !slices.ContainsFunc(found.Steps, broken) {
			list[i].Steps = append(found.Steps, rateLimitStep(limits, registry, found.Upstream))
		}
	}
	return list, nil
}

// Diagnose implements diagnosing.
func (p *registryProxy) Diagnose(ctx context.Context, registry string) ([]admin.Diagnosis, error) {
	found, err := p.Proxy.Diagnose(ctx, registry)
	if err != nil {
		return nil, err
	}
	list := make([]admin.Diagnosis, len(found))
	for i, f := range found {
		list[i].Upstream = f.Upstream
		for _, step := range f.Steps {
			list[i].Steps = append(list[i].Steps, admin.Step(step))
		}
	}
	return list, nil
}

// rateLimitStep returns what an upstream, which is named by its URL, said last about how many
// requests it still serves.
func rateLimitStep(limits []activity.RateLimit, registry, upstream string) admin.Step {
	host := upstream
	if u, err := url.Parse(upstream); err == nil && u.Host != "" {
		host = u.Host
	}
	step := admin.Step{Name: "rate limit", Text: "none that " + host + " reported lately"}
	for _, l := range limits {
		if l.Registry != registry || l.Upstream != host || l.Identity == "client" {
			continue
		}
		step.Text, step.Problem = remaining(l), nil
		if l.Remaining <= 0 {
			step.Text, step.Problem = "", usedUp(l)
		}
		if l.Identity == "login" {
			break // pulls use it
		}
	}
	return step
}

// remaining writes a rate limit: "40 of 100 requests remain".
func remaining(l activity.RateLimit) string {
	if l.Limit == nil {
		return fmt.Sprintf("%d requests remain", l.Remaining)
	}
	return fmt.Sprintf("%d of %d requests remain", l.Remaining, *l.Limit)
}

// usedUp returns the problem that a registry serves no more requests for now.
func usedUp(l activity.RateLimit) *problem.Problem {
	p := &problem.Problem{
		Code: "rate-limit-used-up",
		Text: fmt.Sprintf("%s (%s) serves no more requests of this host's for now", l.Registry, l.Upstream),
		Hint: "sidemirror login " + l.Registry + ", with an account that may pull more",
	}
	if l.Identity == "login" {
		p.Text = fmt.Sprintf("%s (%s) serves no more requests with sidemirror's login for now", l.Registry, l.Upstream)
		p.Hint = "wait, or use an account that may pull more"
	}
	if l.Limit != nil {
		p.Text += ": " + remaining(l)
	}
	if l.Reset != nil {
		p.Text += ", until " + l.Reset.Format("15:04 UTC")
	}
	return p
}
