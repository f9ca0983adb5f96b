package hostconfig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// applier carries out one plan.
type applier struct {
	tree     *hostfs.Host
	journal  *journal.Journal
	signaler signaler
	result   Result
	errs     []error
	failed   map[string]bool // paths
	done     map[string]bool // paths that others saw to
	reload   bool            // dockerd has to be told
	restart  bool            // containerd has to be restarted

	restarted bool // it was

	patience time.Duration // with an engine that is asked
}

// Apply carries plan out. Files that cannot be changed do not keep the others from
// it; the error names each of them, the plan's own refusals too. A file that is not what it was when
// the plan was made is left alone. Engines that run are asked whether it took effect.
func Apply(ctx context.Context, h *Host, plan Plan) (Result, error) {
	return carryOut(ctx, h, plan, true)
}

func carryOut(ctx context.Context, h *Host, plan Plan, asking bool) (Result, error) {
	t, err := h.open()
	if err != nil {
		return Result{}, err
	}
	defer t.Close()
	unlock, err := lock(ctx, h, t, asking)
	if err != nil {
		return Result{}, err
	}
	defer unlock.Close()
	j, err := journal.Load(t)
	if err != nil {
		return Result{}, err
	}
	a := &applier{
		tree: t, journal: j, signaler: h.signals(t), patience: cmp.Or(h.patience, probeLimit),
		reload: plan.reload, restart: plan.restart && plan.pending,
		failed: make(map[string]bool), done: make(map[string]bool), errs: slices.Clone(plan.Refused),
	}
	if err := j.Clean(); err != nil {
		return a.result, err
	}
	t.InPlace = j.InPlace
	if err := a.record(plan); err != nil {
		return a.result, err
	}
	for _, c := range plan.Changes {
		if err := ctx.Err(); err != nil {
			a.errs = append(a.errs, err)
			break
		}
		a.change(ctx, c)
	}
	a.signal(ctx, plan)
	if asking && a.signaler != nil {
		a.askAll(ctx, plan)
	}
	if err := a.finish(); err != nil {
		a.errs = append(a.errs, err)
	}
	return a.result, errors.Join(a.errs...)
}

// lock waits for another sidemirror, except in the watching service, which tries again later.
func lock(ctx context.Context, h *Host, t *hostfs.Host, wait bool) (io.Closer, error) {
	patience := cmp.Or(h.patience, probeLimit)
	if !wait {
		patience = 0
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return t.Lock(ctx)
}

func (a *applier) fail(name string, err error) {
	a.failed[name] = true
	a.errs = append(a.errs, err)
}

// record writes the journal for all of the plan, before the first edit.
func (a *applier) record(plan Plan) error {
	for i := range plan.Changes {
		c := &plan.Changes[i]
		now, err := a.tree.Read(c.Path)
		if err == nil && c.undo && hostfs.Same(now.Data, c.After) {
			a.done[c.Path] = true // by the run before, while this one was planned
			continue
		}
		if err == nil && !hostfs.Same(now.Data, c.Before) {
			err = &problem.Problem{Path: c.Path, Text: "was changed by somebody else since it was planned", Hint: "run again"}
		}
		if err != nil {
			a.fail(c.Path, err)
			continue
		}
		if e := a.journal.Find(c.Path); c.undo && e != nil && c.interim != nil {
			e.Wrote(c.interim)
		} else if !c.undo {
			if err := a.journal.Record(c.edit(), now); err != nil {
				return err
			}
		}
	}
	if !a.journal.KeepNamed(plan.named) && len(plan.Changes) == 0 {
		return nil
	}
	return a.journal.Save()
}

// change makes one change of the plan.
func (a *applier) change(ctx context.Context, c Change) {
	if a.failed[c.Path] || a.done[c.Path] {
		return
	}
	if c.needs != "" && a.failed[c.needs] {
		a.fail(c.Path, &problem.Problem{Path: c.Path, Text: "is left as it is, because " + c.needs + " could not be changed before it", Hint: "mend that and run again"})
		return
	}
	if c.undo {
		a.undo(ctx, c)
		return
	}
	now, err := a.tree.Read(c.Path)
	if err == nil {
		err = a.put(now, c)
	}
	if err != nil {
		a.fail(c.Path, err)
		return
	}
	a.result.Written = append(a.result.Written, c.Path)
	a.reload = a.reload || c.kind == daemonFile
	a.restart = a.restart || c.kind == configFile
}

// put writes a file that is to have our part.
func (a *applier) put(now hostfs.File, c Change) error {
	at := now.Attrs
	at.Mtime = time.Time{}
	if !now.Exists() {
		at = hostfs.Attrs{Mode: 0o644, UID: unix.Geteuid(), GID: unix.Getegid()}
		for _, dir := range a.tree.Missing(now.Real) {
			if err := a.tree.MakeFolder(dir, 0o755); err != nil {
				return err
			}
		}
	}
	return a.tree.Write(now.Real, c.Before, c.After, at)
}

// undo gives one file back: to the byte and to the time where nobody else
// wrote to it.
func (a *applier) undo(ctx context.Context, c Change) {
	now, err := a.tree.Read(c.Path)
	if err != nil {
		a.fail(c.Path, err)
		return
	}
	at, before := now.Attrs, c.Before
	at.Mtime = time.Time{}
	if e := a.journal.Find(c.Path); e != nil && e.Existed && c.After != nil && hostfs.Hash(c.After) == e.Original {
		at.Mtime = e.Attrs.Mtime
	}
	if c.interim != nil && a.signaler != nil && a.signaler.Running(ctx) {
		if err := a.tree.Write(now.Real, before, c.interim, now.Attrs); err != nil {
			a.fail(c.Path, err)
			return
		}
		before = c.interim
		a.clearDocker(ctx)
	} else {
		a.reload = a.reload || c.kind == daemonFile
	}
	if c.After == nil {
		err = a.tree.Remove(now.Real, before)
	} else {
		err = a.tree.Write(now.Real, before, c.After, at)
	}
	if err != nil {
		a.fail(c.Path, err)
		return
	}
	a.result.Given = append(a.result.Given, c.Path)
}

// clearDocker has dockerd take the empty list. Where it does not, the file is
// given back all the same: it is the user's, and right at dockerd's next start.
func (a *applier) clearDocker(ctx context.Context) {
	err := a.signaler.Reload(ctx)
	if err == nil {
		err = a.waitMirrors(ctx, func(list []string) bool { return len(list) == 0 })
	}
	if err != nil {
		a.errs = append(a.errs, fmt.Errorf("docker still asks sidemirror first, until it is restarted: %w", err))
		return
	}
	a.result.Told = append(a.result.Told, "docker reloaded")
}

// waitMirrors waits until dockerd's mirrors are as they should be: it reloads
// after it has been told, at its own time.
func (a *applier) waitMirrors(ctx context.Context, right func([]string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := a.signaler.Info(ctx)
		if err == nil && right(now.mirrors) {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("its mirrors in force are %q", now.mirrors)
			}
			return fmt.Errorf("docker did not take its new configuration: %w; see journalctl -u docker", err)
		case <-tick.C:
		}
	}
}

// signal tells the engines of what was written.
func (a *applier) signal(ctx context.Context, plan Plan) {
	if a.signaler == nil {
		return
	}
	if a.reload && a.signaler.Running(ctx) {
		err := a.signaler.Reload(ctx)
		if url := a.mirrorOf(plan); err == nil && url != "" {
			err = a.waitMirrors(ctx, func(list []string) bool { return hasMirror(list, url) })
		}
		if err != nil {
			a.errs = append(a.errs, err)
		} else {
			a.result.Told = append(a.result.Told, "docker reloaded")
		}
	}
	if a.restart && plan.restart {
		if err := a.signaler.Restart(ctx); err != nil {
			a.errs = append(a.errs, err)
		} else {
			a.restarted = true
			a.result.Told = append(a.result.Told, "containerd restarted")
		}
	}
}

// mirrorOf is what dockerd should have in force after plan, or "".
func (a *applier) mirrorOf(plan Plan) string {
	for _, c := range plan.Changes {
		if c.kind == daemonFile && !c.undo && !a.failed[c.Path] {
			return c.url
		}
	}
	if plan.reload {
		return plan.Mirror
	}
	return ""
}

// finish takes out of the journal what is given back, or never came about, and
// removes the folders that were made for it.
func (a *applier) finish() error {
	p := &planner{tree: a.tree, journal: a.journal}
	for _, e := range slices.Clone(a.journal.Files) {
		now, err := a.tree.Read(e.Real)
		if err != nil {
			continue // refused and reported where it was to be changed
		}
		if now.Exists() && e.IsOurs(now.Data) {
			continue
		}
		if now.Exists() {
			if _, found, _, err := p.strip(kind(e.Kind), now, e, nil); found || err != nil {
				continue
			}
		}
		a.journal.Drop(e.Real)
	}
	a.journal.KeepNamed(nil)
	for _, dir := range slices.Backward(slices.Clone(a.journal.Folders)) {
		below := func(e *journal.Entry) bool { return strings.HasPrefix(e.Real, dir+"/") }
		if slices.ContainsFunc(a.journal.Files, below) {
			continue
		}
		if err := a.tree.RemoveFolder(dir); err != nil {
			return err
		}
		a.journal.Folders = without(a.journal.Folders, dir)
	}
	return a.journal.Save()
}
