package hostconfig

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// applier carries out one plan.
type applier struct {
	tree    *hostfs.Host
	journal *journal.Journal
	running live.Host // nil if no engine is signalled
	mirror  string
	result  Result
	errs    []error
	failed  map[string]bool // paths
	done    map[string]bool // paths that another run took care of
	inForce map[string]bool // paths from which dockerd has taken what it did not give up

	patience time.Duration // with an engine that is probed
}

// lockLimit is for another sidemirror to end.
const lockLimit = 10 * time.Second

// Apply carries a plan out. A file that cannot be changed does not keep the others from it; the error
// names each of them, and what the plan refused. A file that is not what it was when the plan was
// made is left alone.
func Apply(ctx context.Context, h *Host, plan Plan) (Result, error) {
	t, err := h.open()
	if err != nil {
		return Result{}, err
	}
	defer t.Close()
	unlock, err := h.lock(ctx, t)
	if err != nil {
		return Result{}, err
	}
	defer unlock.Close()
	j := journal.Salvage(t)
	if len(j.Problems) > 0 && !plan.restores() {
		return Result{}, errors.Join(j.Problems...)
	}
	a := &applier{
		tree: t, journal: j, running: h.running(t), patience: cmp.Or(h.patience, probeLimit), mirror: plan.Mirror,
		failed: make(map[string]bool), done: make(map[string]bool), inForce: make(map[string]bool),
	}
	for _, p := range plan.Refused {
		a.errs = append(a.errs, p)
	}
	a.report(j.Problems...)
	t.InPlace = j.InPlace
	if err := cmp.Or(j.Clean(), a.record(plan)); err != nil {
		if !plan.restores() {
			return a.result, err
		}
		a.report(problem.Split(err)...) // what is taken out needs no record
	}
	signals := slices.Clone(plan.pending)
	for _, c := range plan.Changes {
		if err := ctx.Err(); err != nil {
			a.errs = append(a.errs, err)
			break
		}
		s, ok := plan.signal(c)
		if a.change(ctx, c) && ok && !slices.Contains(signals, s) {
			signals = append(signals, s)
		}
	}
	a.signal(ctx, plan, signals)
	a.warnOfRestarts(ctx, plan)
	if h.Probe && a.running != nil {
		a.probeAll(ctx, plan)
	}
	if err := a.finish(); err != nil {
		a.errs = append(a.errs, err)
	}
	if j.Recovered() {
		a.forgive(j.Problems)
	}
	return a.result, errors.Join(a.errs...)
}

// report adds errors that were not reported yet.
func (a *applier) report(errs ...error) {
	for _, err := range errs {
		if !slices.ContainsFunc(a.errs, func(known error) bool { return known.Error() == err.Error() }) {
			a.errs = append(a.errs, err)
		}
	}
}

// forgive makes warnings of the problems of a journal that was damaged and is not needed any more.
func (a *applier) forgive(problems []error) {
	for _, err := range problems {
		warning := *problem.Coded(err, "journal-damaged")
		warning.Hint = "nothing is left to do: every file is restored"
		a.result.Warnings = append(a.result.Warnings, &warning)
		a.errs = slices.DeleteFunc(a.errs, func(known error) bool { return known.Error() == err.Error() })
	}
}

// restores reports whether a plan only takes entries out.
func (p Plan) restores() bool {
	return !slices.ContainsFunc(p.Changes, func(c Change) bool { return !c.Restores })
}

// lock waits for another sidemirror, except in the watching service, which tries again later.
func (h *Host) lock(ctx context.Context, t *hostfs.Host) (io.Closer, error) {
	var patience time.Duration
	if !h.Hurry {
		patience = cmp.Or(h.patience, lockLimit)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return t.Lock(ctx)
}

func (a *applier) fail(name string, err error) {
	a.failed[name] = true
	a.errs = append(a.errs, err)
}

// daemon returns the running daemon of an engine, or nil.
func (a *applier) daemon(ctx context.Context, name string) live.Daemon {
	if a.running == nil {
		return nil
	}
	return a.running.Daemon(ctx, name)
}

// record writes the journal for all of the plan, before the first edit.
func (a *applier) record(plan Plan) error {
	for _, c := range plan.Changes {
		now, err := a.tree.Read(c.Path)
		if err == nil && c.Restores && hostfs.Same(now.Data, c.After) && !hostfs.Same(c.Before, c.After) {
			a.done[c.Path] = true // by a run that came between
			continue
		}
		if err == nil && !hostfs.Same(now.Data, c.Before) {
			err = &problem.Problem{Code: "file-changed", Path: c.Path, Text: "has changed since the plan was made", Hint: "run the command again"}
		}
		if err != nil {
			a.fail(c.Path, err)
			continue
		}
		e := a.journal.Find(c.Path)
		switch {
		case c.Restores && (c.interim == nil || hostfs.Same(c.interim, now.Data)): // nothing new is written
		case c.Restores && e != nil:
			e.Wrote(c.interim)
		default:
			if err := a.journal.Record(c.edit(), now); err != nil {
				return err
			}
		}
	}
	remember := plan.allowPort && !a.journal.AllowUnprivilegedPort
	a.journal.AllowUnprivilegedPort = a.journal.AllowUnprivilegedPort || plan.allowPort
	if !a.journal.KeepNamed(plan.named) && !remember && len(plan.Changes) == 0 {
		return nil
	}
	return a.journal.Save()
}

// edit returns what the journal records of a change before it is made.
func (c *Change) edit() journal.Edit {
	e := journal.Edit{
		Engine: c.Engine, Kind: string(c.Kind), Path: c.Path, URL: c.url, Engines: c.engines, Paths: c.paths,
		Base: c.base, Contents: [][]byte{c.interim},
	}
	if !c.Restores {
		e.Contents = append(e.Contents, c.After)
	}
	return e
}

// change makes one change of the plan. It reports whether the engine must be signalled.
func (a *applier) change(ctx context.Context, c Change) (tell bool) {
	if a.failed[c.Path] || a.done[c.Path] {
		return false
	}
	if c.Needs != "" && c.Restores && a.inForce[c.Needs] {
		a.fail(c.Path, &problem.Problem{
			Code: "docker-mirror-in-force", Path: c.Path, Text: "stays, because the running dockerd still asks sidemirror: without this file it would stop verifying TLS to Docker Hub",
			Hint: "restart docker and run the command again",
		})
		return false
	}
	if c.Needs != "" && a.failed[c.Needs] {
		a.fail(c.Path, &problem.Problem{
			Code: "needed-file-failed", Path: c.Path, Text: "stays as it is, because " + c.Needs + " could not be changed before it",
			Hint: "correct that and run the command again",
		})
		return false
	}
	if c.Restores {
		a.restore(ctx, c) // which tells Docker, if it must
		return (c.Kind == engine.RegistriesConf || c.Kind == engine.DropIn) && !a.failed[c.Path]
	}
	now, err := a.tree.Read(c.Path)
	if err == nil {
		err = a.put(now, c)
	}
	if err != nil {
		a.fail(c.Path, err)
		return false
	}
	a.result.Written = append(a.result.Written, c.Path)
	return true
}

// put writes a file with its entry.
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

// restore takes the entry out of one file: to the byte and to the time if no other program wrote to
// it. It tells dockerd at once; containerd is never told.
func (a *applier) restore(ctx context.Context, c Change) {
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
	d := a.daemon(ctx, engine.Docker)
	if c.Kind != engine.DaemonJSON {
		d = nil
	}
	if c.interim != nil && d != nil {
		if err := a.putInterim(now, c); err != nil {
			a.fail(c.Path, err)
			return
		}
		before = c.interim
		a.clearDocker(ctx, d, c)
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
	if !hostfs.Same(c.Before, c.After) {
		a.journal.Restored(c.After)
		a.result.Restored = append(a.result.Restored, c.Path)
	}
	if c.interim != nil || d == nil {
		return
	}
	if _, err := splice.ReadDaemon(c.Path, c.After, splice.Version{}); err != nil {
		a.inForce[c.Path] = true // dockerd would not take it
		return
	}
	a.clearDocker(ctx, d, c) // now, before a file goes that makes the mirror harmless
}

// putInterim writes what dockerd has to take on the way.
func (a *applier) putInterim(now hostfs.File, c Change) error {
	at := now.Attrs
	if !now.Exists() {
		at = hostfs.Attrs{Mode: 0o644, UID: unix.Geteuid(), GID: unix.Getegid()}
	}
	return a.tree.Write(now.Real, c.Before, c.interim, at)
}

// finish removes from the journal what is restored, or never came about, and the folders that were
// made for it.
func (a *applier) finish() error {
	for _, e := range slices.Clone(a.journal.Files) {
		now, err := a.tree.Read(e.Real)
		if err != nil {
			continue // reported when its change was planned
		}
		if now.Exists() {
			removed, err := strip(engine.Kind(e.Kind), now, e, "", nil)
			if e.IsOurs(now.Data) || removed.Found || err != nil {
				continue
			}
		}
		a.journal.Drop(e.Real)
	}
	a.journal.KeepNamed(nil)
	var errs []error
	var stay []string // files and folders
	for _, e := range a.journal.Files {
		stay = append(stay, e.Real)
	}
	for _, dir := range slices.Backward(slices.Clone(a.journal.Folders)) {
		if slices.ContainsFunc(stay, func(name string) bool { return strings.HasPrefix(name, dir+"/") }) {
			continue
		}
		if err := a.tree.RemoveFolder(dir); err != nil {
			errs, stay = append(errs, err), append(stay, dir)
			continue
		}
		a.journal.Folders = slices.DeleteFunc(a.journal.Folders, func(s string) bool { return s == dir })
	}
	return errors.Join(append(errs, a.journal.Save())...)
}
