package hostconfig

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// reloadLimit is for dockerd to take a new configuration, which it does at its own time.
const reloadLimit = 10 * time.Second

// signal tells the engines what was written.
func (a *applier) signal(ctx context.Context, plan Plan, signals []live.Signal) {
	for _, s := range signals {
		d := a.daemon(ctx, s.Engine)
		if d == nil {
			continue
		}
		err := d.Signal(ctx, s.Verb)
		if wanted := a.mirrorAfter(plan); err == nil && s.Engine == engine.Docker && s.Verb == live.Reload && wanted != "" {
			err = waitMirrors(ctx, d, func(list []string) bool {
				return slices.ContainsFunc(list, func(m string) bool { return strings.TrimSuffix(m, "/") == wanted })
			})
		}
		if err != nil {
			a.errs = append(a.errs, err)
		} else {
			a.result.Signals = append(a.result.Signals, s)
		}
	}
}

// warnOfRestarts warns of engines that use what was taken out of their files until they are restarted.
// sidemirror restarts none for that: they forget the setting at their next start, and until then it does
// no harm.
func (a *applier) warnOfRestarts(ctx context.Context, plan Plan) {
	for _, w := range []struct {
		kind   engine.Kind
		engine string
		code   problem.Code
		hint   string
	}{
		{engine.ConfigTOML, engine.Containerd, "containerd-not-restarted", "systemctl restart containerd (containers keep running)"},
		{engine.BuildkitdTOML, engine.BuildKit, "buildkit-not-restarted", "systemctl restart buildkit (builds that run are lost)"},
	} {
		restored := func(c Change) bool {
			return c.Kind == w.kind && c.Restores && slices.Contains(a.result.Restored, c.Path)
		}
		i := slices.IndexFunc(plan.Changes, restored)
		if i < 0 || a.daemon(ctx, w.engine) == nil {
			continue
		}
		a.result.Warnings = append(a.result.Warnings, &problem.Problem{
			Code: w.code, Path: plan.Changes[i].Path, Text: w.engine + " was not restarted: until it is, it uses what this file had before",
			Hint: w.hint,
		})
	}
}

// mirrorAfter returns the mirror that dockerd should have in force after a plan, or "".
func (a *applier) mirrorAfter(plan Plan) string {
	for _, c := range plan.Changes {
		if c.Kind == engine.DaemonJSON {
			if c.Restores || a.failed[c.Path] {
				return ""
			}
			return c.url
		}
	}
	return plan.Mirror // dockerd has not taken a file that is in place
}

// clearDocker makes dockerd take the file from which a change removes sidemirror's address, and waits
// until dockerd does not ask it any more. If it does not, the file is restored nevertheless: it is the
// user's, and right at dockerd's next start.
func (a *applier) clearDocker(ctx context.Context, d live.Daemon, c Change) {
	urls := []string{a.mirror}
	if e := a.journal.Find(c.Path); e != nil {
		urls = append(urls, e.URL)
	}
	ours := func(m string) bool {
		return slices.ContainsFunc(urls, func(url string) bool { return url != "" && splice.SameURL(m, url) })
	}
	err := d.Signal(ctx, live.Reload)
	if err == nil {
		err = waitMirrors(ctx, d, func(list []string) bool { return !slices.ContainsFunc(list, ours) })
	}
	if err != nil {
		a.inForce[c.Path] = true
		a.errs = append(a.errs, &problem.Problem{
			Code: "docker-mirror-in-force", Text: "docker still asks sidemirror first, until it is restarted", Err: err, Hint: "systemctl restart docker",
		})
		return
	}
	a.result.Signals = append(a.result.Signals, live.Signal{Engine: engine.Docker, Verb: live.Reload})
}

// waitMirrors waits until dockerd's mirrors are as they should be.
func waitMirrors(ctx context.Context, d live.Daemon, right func([]string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, reloadLimit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := d.Info(ctx)
		if err == nil && right(now.Mirrors) {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("its mirrors in force are %q", now.Mirrors)
			}
			return &problem.Problem{Code: "docker-reload-failed", Text: "docker did not take its new configuration", Err: err, Hint: "see journalctl -u docker"}
		case <-tick.C:
		}
	}
}
