package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	// recheckEvery is how often upstreams that are out of reach are asked again, so that a problem
	// does not stay until the next pull.
	recheckEvery = 30 * time.Second

	// lastAsked is for how long after the last request an upstream that is out of reach is a problem.
	lastAsked = time.Hour
)

// inLine are the problems that the status line has in words of its own.
var inLine = []problem.Code{"no-configuration", "configuration-not-in-force", "port-unprivileged"}

// examine reports to the registry of problems what is wrong now.
func (d *daemon) examine(now time.Time) {
	set := func(source string, problems ...*problem.Problem) {
		present := slices.DeleteFunc(problems, func(p *problem.Problem) bool { return p == nil })
		d.health.Set(source, now, present...)
	}
	d.readEngines()
	set("configuration", d.configurationProblem())
	set("state", d.unsaved.Load())
	set("addresses", d.line.wrongAddresses()...)
	set("cache", d.caches.problem())
	set("shared store", d.sharedProblems()...)
	set("name servers", d.names.problem(d.log))
	set("trust", d.trustProblem())
	set("metrics", d.scraped.wrong()...)
	set("traces", d.traces.problem())
	_, guests := d.guests.report()
	set("guests", guests...)
	set("site", d.site.problems()...)
	set("visitors", d.visitors.Users.Problem())
	var logins []*problem.Problem
	if s, ok := d.handler.get().service.(problematic); ok {
		logins = s.Problems()
	}
	set("logins", logins...)
	set("upstreams", d.upstreamProblems(now)...)
	set("rate limits", d.rateLimitProblems(now)...)
	d.setNotices(now)
}

// logProblem logs a problem that is new or over.
func (d *daemon) logProblem(p health.Problem, over bool) {
	log := d.log.WithFields(logrus.Fields{"code": p.Code, "problem": p.Error()})
	if over {
		log.WithField("since", p.Since.Format(time.RFC3339)).Info("a problem is over: " + p.Title)
		return
	}
	level := map[health.Severity]logrus.Level{health.Note: logrus.InfoLevel, health.Warning: logrus.WarnLevel, health.Error: logrus.ErrorLevel}[p.Severity]
	log.WithField("hint", p.Hint).Log(level, p.Title)
}

func (d *daemon) configurationProblem() *problem.Problem {
	why := d.line.reason()
	if why == "" {
		return nil
	}
	p := &problem.Problem{Code: "configuration-not-in-force", Text: "the configuration on disk is not in force: " + why, Hint: "sidemirror config check"}
	if d.isRefusing() {
		p.Code, p.Text = "no-configuration", "every request is refused, because the configuration on disk cannot be used and there is no earlier one: "+why
	}
	return p
}

func (d *daemon) trustProblem() *problem.Problem {
	text := d.trust.Load().Weakness()
	if text == "" {
		return nil
	}
	return &problem.Problem{
		Code: "trust-by-user-alone",
		Text: "every process of a user in trust.uids may use the logins, also one of root's in a container on the host's network: " + text,
		Hint: "see docs/security.md",
	}
}

// upstreamProblems returns which of the configured upstreams that were asked lately cannot be reached,
// or are skipped because another one is faster.
func (d *daemon) upstreamProblems(now time.Time) (list []*problem.Problem) {
	for _, u := range d.activity.Activity(now).Upstreams {
		if u.Configured && u.Reachable && u.Skipped != "" {
			list = append(list, &problem.Problem{
				Code: "upstream-skipped", Text: fmt.Sprintf("%s is skipped for now: %s", u.Name, u.Skipped),
				Hint: "sidemirror tries it again in the background; if it is always slow, put it behind the others in upstreams",
			})
		}
		if u.Configured && !u.Reachable && u.Reason != "" && now.Sub(u.LastAsked) < lastAsked {
			list = append(list, &problem.Problem{
				Code: "upstream-unreachable", Text: u.Reason, Hint: d.unreachableHint(u.Name),
			})
		}
	}
	return list
}

// unreachableHint returns what an upstream out of reach means for pulls, and how to find out why.
func (d *daemon) unreachableHint(upstream string) string {
	const why = "; to find out why: sidemirror doctor"
	if others := othersOf(d.shown.Load(), upstream); len(others) > 0 {
		return "sidemirror asks " + strings.Join(others, " and ") + " instead" + why
	}
	return "until it is, engines get what is stored" + why
}

// othersOf returns the other upstreams of the registry that has an upstream of that label.
func othersOf(c *config.Config, label string) (others []string) {
	if c == nil {
		return nil
	}
	for _, r := range c.Registries {
		if !slices.ContainsFunc(r.Upstreams, func(u config.Upstream) bool { return u.Label() == label }) {
			continue
		}
		for _, u := range r.Upstreams {
			if u.Label() != label && !slices.Contains(others, u.Label()) {
				others = append(others, u.Label())
			}
		}
	}
	return others
}

// rateLimitProblems returns which registries serve no more requests for now.
func (d *daemon) rateLimitProblems(now time.Time) (list []*problem.Problem) {
	for _, l := range d.activity.Activity(now).RateLimits {
		if l.Remaining > 0 || l.Identity == "client" {
			continue
		}
		list = append(list, usedUp(l))
	}
	return list
}

// rechecker is a service that can ask upstreams that are out of reach again.
type rechecker interface{ Recheck(ctx context.Context) }

// recheck asks upstreams that are out of reach again, from time to time.
func (d *daemon) recheck(ctx context.Context) {
	if now := time.Now(); now.Sub(d.rechecked) >= recheckEvery {
		d.rechecked = now
		g := d.handler.use()
		d.tasks.Go(func() {
			defer g.requests.Done()
			if s, ok := g.service.(rechecker); ok {
				s.Recheck(ctx)
			}
		})
	}
}
