package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/internal/durable"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// The journal's folders appear and disappear by one rename of the outermost of them, with the
// journal already, or still, inside: at no instant is there a folder of sidemirror's without
// anything that says so.

// rootOnly is the code of the problem that this user may not read the journal.
const rootOnly = "journal-root-only"

// private resolves a folder whose content is obeyed, and refuses one that another user could have
// put there or written into. A missing one is no error.
func private(h *hostfs.Host, name string) (string, error) {
	above, err := h.Follow(path.Dir(name))
	if err != nil {
		return "", err
	}
	real := path.Join(above, path.Base(name))
	if err := h.Trusted(above); err != nil {
		return "", err
	}
	refuse := func(text, hint string) (string, error) {
		return "", &problem.Problem{Code: "journal-not-private", Path: real, Text: text, Hint: hint}
	}
	hidden := &problem.Problem{
		Code: rootOnly, Path: real, Text: "readable by root only, so that it is not known what was there before sidemirror", Hint: "run as root",
	}
	info, err := h.Lstat(real)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return real, nil
	case err != nil:
		return "", hostfs.Explain(real, "looking at it", err)
	case !info.IsDir():
		return refuse("not a folder, so that what it leads to cannot be trusted", "check what it is, and move it away")
	}
	uid, us := int(info.Sys().(*syscall.Stat_t).Uid), unix.Geteuid()
	switch {
	case uid == 0 && us != 0:
		return "", hidden
	case uid != us:
		return refuse(fmt.Sprintf("belongs to user %d instead of %d, so that its content cannot be trusted", uid, us),
			"check who put it there; what is in it tells which files to restore by hand; then move it away")
	case info.Mode().Perm()&0o022 != 0:
		return refuse("other users may write to it, so that its content cannot be trusted",
			"check that its content is as you left it, then chmod 700 "+problem.QuotePath(real))
	}
	return real, nil
}

// steps lists the journal's folder and those above it, outermost first.
func (j *Journal) steps() []string {
	var list []string
	for dir := j.dir; dir != "/"; dir = path.Dir(dir) {
		list = append([]string{dir}, list...)
	}
	return list
}

// staging returns the name of dir before it is whole and after it was given up.
func staging(dir string) string { return path.Join(path.Dir(dir), durable.Temp(path.Base(dir))) }

// Clean removes what a run that was killed left behind: folders that were never renamed into place,
// half a write in place, and temporary files next to the engines' files.
//
// It does all that it can; the error tells what it could not.
func (j *Journal) Clean() error {
	if j.closed {
		return nil
	}
	var errs []error
	for _, dir := range j.steps() {
		// On a file system that is read-only, as / is to the watching service, even the removal
		// of nothing fails.
		if _, err := j.host.Lstat(staging(dir)); err != nil {
			continue
		}
		errs = append(errs, j.host.RemoveAll(staging(dir)))
	}
	errs = append(errs, j.repair())
	names := []string{j.name(), j.inPlaceName()}
	for _, e := range j.Files {
		names = append(names, e.Real)
	}
	for _, name := range names {
		errs = append(errs, j.host.RemoveTemp(name))
	}
	return errors.Join(append(errs, j.prune())...)
}

// open makes the journal's folder if it is missing.
func (j *Journal) open() error {
	missing := j.host.Missing(j.name())
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
		if err := j.host.MakeFolder(temp+dir[len(top):], mode); err != nil {
			return err
		}
	}
	data, err := j.encode()
	if err != nil {
		return err
	}
	if err := j.host.Write(temp+j.name()[len(top):], nil, data, ownAttrs()); err != nil {
		return err
	}
	return j.host.RenameFolder(temp, top)
}

// close removes the journal's folder and those above it that were made for it, as far as they hold
// nothing else.
func (j *Journal) close() error {
	if !j.host.IsDir(j.dir) {
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
	if err := j.host.RenameFolder(top, staging(top)); errors.Is(err, unix.EROFS) || errors.Is(err, unix.EBUSY) {
		// The watching service may write in this folder, and not in the one above it.
		return j.empty()
	} else if err != nil {
		return err
	}
	if err := j.host.RemoveAll(staging(top)); err != nil {
		return err
	}
	return j.host.SyncFolder(path.Dir(top))
}

// empty removes the journal from a folder that was there before it.
func (j *Journal) empty() error {
	for _, name := range []string{j.inPlaceName(), j.name(), j.originals()} {
		if err := j.host.RemoveAll(name); err != nil {
			return err
		}
	}
	return j.host.SyncFolder(j.dir)
}

func (j *Journal) made(dir string) bool { return slices.Contains(j.Own, dir) }

// bare reports whether dir holds nothing but the way down to the journal.
func (j *Journal) bare(dir string) bool {
	for at := j.dir; at != dir; at = path.Dir(at) {
		list, err := j.host.Names(path.Dir(at))
		if err != nil || len(list) != 1 {
			return false
		}
	}
	return true
}
