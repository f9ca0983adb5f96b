package hostconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// The journal's folders come and go by one rename of the outermost of them, with
// the journal already, or still, inside: there is no instant at which a folder
// of ours stands there and nothing says that it is ours.

// private resolves a folder whose content is obeyed, and refuses one that anybody but us
// could have put there or written into. One that is not there is no error.
func (t *tree) private(name string) (string, error) {
	above, err := t.follow(path.Dir(name))
	if err != nil {
		return "", err
	}
	real := path.Join(above, path.Base(name))
	info, err := t.root.Lstat(local(real))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return real, nil
	case err != nil:
		return "", explain(real, "looking at", err)
	case !info.IsDir():
		return "", &refusal{path: real, reason: "is not a folder of its own, so that what it leads to cannot be trusted", mend: "see what it is, and move it away"}
	}
	uid, _ := owner(info)
	switch us := unix.Geteuid(); {
	case uid == 0 && us != 0:
		return "", &refusal{path: real, reason: "is for root alone", mend: "run as root"}
	case uid != us:
		return "", &refusal{path: real, reason: fmt.Sprintf("belongs to user %d, not to us (%d), so that what it says cannot be trusted", uid, us),
			mend: "see who put it there; what is in it tells which files to give back by hand; then move it away"}
	case info.Mode().Perm()&0o022 != 0:
		return "", &refusal{path: real, reason: "may be written by others, so that what it says cannot be trusted", mend: "see that its content is as you left it, then chmod 700 " + quotePath(real)}
	}
	return real, nil
}

// steps are the journal's folder and those above it, outermost first.
func (j *journal) steps() []string {
	var list []string
	for dir := j.dir; dir != "/"; dir = path.Dir(dir) {
		list = append([]string{dir}, list...)
	}
	return list
}

// staging is what dir is called before it is whole and after it was given up.
func staging(dir string) string { return path.Join(path.Dir(dir), tempName(path.Base(dir))) }

// clean removes what a run that was killed left behind: folders that were never
// renamed into place, and temporary files beside the engines' files.
func (j *journal) clean() error {
	for _, dir := range j.steps() {
		// On a file system that is read-only, as / is to the watching service, even the removal
		// of nothing fails.
		if _, err := j.tree.root.Lstat(local(staging(dir))); err != nil {
			continue
		}
		if err := j.tree.root.RemoveAll(local(staging(dir))); err != nil {
			return explain(staging(dir), "removing", err)
		}
	}
	if err := j.mend(); err != nil {
		return err
	}
	names := []string{j.name(), j.intentName()}
	for _, e := range j.Files {
		names = append(names, e.Real)
	}
	for _, name := range names {
		if err := j.tree.removeTemp(name); err != nil {
			return err
		}
	}
	return j.prune()
}

// open makes the journal's folder where it is not there.
func (j *journal) open() error {
	missing := j.tree.missing(j.name())
	if len(missing) == 0 {
		return nil
	}
	j.Own = missing
	top, temp := missing[0], staging(missing[0])
	for _, dir := range missing {
		mode := fs.FileMode(0o755)
		if dir == j.dir {
			mode = 0o700
		}
		if err := j.tree.makeFolder(temp+dir[len(top):], mode); err != nil {
			return err
		}
	}
	data, err := j.encode()
	if err != nil {
		return err
	}
	if err := j.tree.write(temp+j.name()[len(top):], nil, data, ownAttrs()); err != nil {
		return err
	}
	return j.tree.rename(temp, top)
}

// close removes the journal's folder and those above it that were made for it,
// as far as nobody else has put anything there.
func (j *journal) close() error {
	if !j.tree.isDir(j.dir) {
		return nil
	}
	if !j.made(j.dir) {
		return j.empty()
	}
	top := j.dir
	for _, dir := range j.steps() {
		if j.made(dir) && j.bare(dir) {
			top = dir
			break
		}
	}
	if err := j.tree.rename(top, staging(top)); errors.Is(err, unix.EROFS) || errors.Is(err, unix.EBUSY) {
		// The watching service may write in this folder, and not in the one above it.
		return j.empty()
	} else if err != nil {
		return err
	}
	if err := j.tree.about("remove", staging(top)); err != nil {
		return explain(top, "removing", err)
	}
	if err := j.tree.root.RemoveAll(local(staging(top))); err != nil {
		return explain(top, "removing", err)
	}
	return j.tree.syncFolder(path.Dir(top))
}

// empty removes the journal from a folder that was there before it.
func (j *journal) empty() error {
	for _, name := range []string{j.intentName(), j.name(), j.originals()} {
		if err := j.tree.about("remove", name); err != nil {
			return explain(name, "removing", err)
		}
		if err := j.tree.root.RemoveAll(local(name)); err != nil {
			return explain(name, "removing", err)
		}
	}
	return j.tree.syncFolder(j.dir)
}

func (j *journal) made(dir string) bool { return slices.Contains(j.Own, dir) }

// bare reports whether dir holds nothing but the way down to the journal.
func (j *journal) bare(dir string) bool {
	for at := j.dir; at != dir; at = path.Dir(at) {
		list, err := j.tree.names(path.Dir(at))
		if err != nil || len(list) != 1 {
			return false
		}
	}
	return true
}

func (t *tree) rename(from, to string) error {
	if err := t.about("rename folder", to); err != nil {
		return explain(to, "renaming", err)
	}
	if err := t.root.Rename(local(from), local(to)); err != nil {
		return explain(to, "renaming", err)
	}
	return t.syncFolder(path.Dir(to))
}
