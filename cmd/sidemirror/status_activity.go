package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/daemon/activity"
	"github.com/sidemirror/sidemirror/daemon/admin"
	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// daemonPatience is how long the daemon may take for each answer.
const daemonPatience = 2 * time.Second

// daemonReport is what the running daemon reports about itself.
type daemonReport struct {
	state.State

	cache    *admin.Cache
	activity *activity.Activity
	warnings []*problem.Problem // those of the notes whose cause is not on this host
}

// readDaemon asks the daemon by its admin API. If it cannot, as in a daemon of an earlier version, it reads
// the state that the daemon has written.
func readDaemon(ctx context.Context, c admin.Client) daemonReport {
	ctx, cancel := context.WithTimeout(ctx, daemonPatience)
	defer cancel()
	s, err := c.Status(ctx)
	if err != nil {
		return daemonReport{State: readState()}
	}
	r := daemonReport{cache: s.Cache, State: state.State{Logins: s.Logins, Outbound: s.Outbound, Guests: s.Guests, Site: s.Site, Refused: s.Refused}}
	for _, p := range s.Problems {
		if p.Severity == health.Error {
			r.Problems = append(r.Problems, p.Problem)
			continue
		}
		r.Notes = append(r.Notes, p.Problem)
		if p.Severity == health.Warning {
			r.warnings = append(r.warnings, p.Problem)
		}
	}
	if a, err := c.Activity(ctx); err == nil {
		r.activity = &a
	}
	return r
}

// activity prints what the daemon did lately, as far as it is known.
func (p *printer) activity(c *admin.Cache, a *activity.Activity, now time.Time) {
	line := func(name, text string) {
		if text != "" {
			p.printf("%-10s  %s\n", name, printable(text))
		}
	}
	if c != nil {
		line("cache", cacheText(*c, a))
	}
	if a == nil {
		return
	}
	line("last pulls", lastPullsText(a.Engines, now))
	line("upstreams", upstreamsText(a.Upstreams))
	for _, l := range a.RateLimits {
		line("rate limit", rateLimitText(l, now))
	}
}

// cacheText returns "1.2 GiB of 20.0 GiB; in a day 83 % of 120 requests from the cache, 3.4 GiB saved".
func cacheText(c admin.Cache, a *activity.Activity) string {
	text := "not counted yet"
	if c.Bytes != nil {
		text = bytesText(*c.Bytes)
	}
	if c.MaxSize > 0 {
		text += " of " + bytesText(c.MaxSize)
	}
	if a != nil && a.Day.Requests > 0 {
		text += fmt.Sprintf("; in a day %.0f %% of %s from the cache, %s saved",
			100*a.Day.HitRate(), several(int(a.Day.Requests), "request"), bytesText(a.Day.Bytes.Cache))
	}
	return text
}

// lastPullsText returns when each engine pulled last: "docker 5 minutes ago, containerd 2 days ago".
func lastPullsText(engines []activity.Engine, now time.Time) string {
	var parts []string
	for _, e := range engines {
		parts = append(parts, e.Name+" "+agoText(e.Last, now))
	}
	return strings.Join(parts, ", ")
}

// upstreamsText lists the upstreams that were asked by whether they can be reached.
func upstreamsText(upstreams []activity.Upstream) string {
	var reachable, skipped, away []string
	for _, u := range upstreams {
		switch {
		case !u.Reachable:
			away = append(away, u.Name)
		case u.Skipped != "":
			skipped = append(skipped, u.Name)
		default:
			reachable = append(reachable, u.Name)
		}
	}
	var parts []string
	if len(reachable) > 0 {
		parts = append(parts, "reachable: "+strings.Join(reachable, ", "))
	}
	if len(skipped) > 0 {
		parts = append(parts, "skipped as too slow: "+strings.Join(skipped, ", "))
	}
	if len(away) > 0 {
		parts = append(parts, "out of reach: "+strings.Join(away, ", "))
	}
	return strings.Join(parts, "; ")
}

// identityTexts say whose requests a rate limit is about.
var identityTexts = map[string]string{"anonymous": "without a login", "login": "with sidemirror's login", "client": "with a client's login"}

// rateLimitText returns "docker.io serves 76 of 100 requests more without a login; more at 15:04".
func rateLimitText(l activity.RateLimit, now time.Time) string {
	left := fmt.Sprint(l.Remaining)
	if l.Limit != nil {
		left += fmt.Sprintf(" of %d", *l.Limit)
	}
	text := fmt.Sprintf("%s serves %s requests more %s", l.Registry, left, identityTexts[l.Identity])
	switch {
	case l.Reset != nil && l.Reset.After(now):
		text += ", and others from " + l.Reset.Local().Format("15:04") + " on"
	case l.Window > 0:
		text += fmt.Sprintf("; the limit is for %s", time.Duration(l.Window*float64(time.Second)))
	}
	return text
}

// watchEvery is how often "status --watch" draws the screen again.
const watchEvery = 2 * time.Second

// redraw prints what draw returns on a cleared screen, again and again, until ctx is done.
func redraw(ctx context.Context, w io.Writer, every time.Duration, draw func() (string, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		screen, err := draw()
		if ctx.Err() != nil {
			return nil // the person has seen enough
		}
		if err != nil {
			return err
		}
		const home, clearRest = "\x1b[H", "\x1b[J"
		// Each line ends what the screen before has left there, which does not flicker.
		if _, err := io.WriteString(w, home+strings.ReplaceAll(screen, "\n", "\x1b[K\n")+clearRest); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
