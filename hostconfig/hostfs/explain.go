package hostfs

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/problem"
)

const hintReadOnly = "make it writable, or write this file into the host's image; if only sidemirror-hosts.service sees it read-only, see ReadWritePaths there"

// Explain returns a problem of name that adds what a bare error number does not tell a person.
// doing says what failed: "opening it". An error that is a [problem.Problem] is returned as it is.
func Explain(name, doing string, err error) error {
	var known *problem.Problem
	if errors.As(err, &known) {
		return err
	}
	p := &problem.Problem{Code: "file-error", Path: name, Text: doing, Err: err}
	switch {
	case errors.Is(err, unix.EROFS):
		p.Code, p.Hint = "file-system-read-only", "the file system is read-only: "+hintReadOnly
	case errors.Is(err, unix.EPERM):
		p.Code, p.Hint = "file-immutable", "the file or its folder may be immutable: see lsattr, and chattr -i"
	case errors.Is(err, fs.ErrPermission) && unix.Geteuid() == 0:
		p.Code, p.Hint = "permission-denied", "root without capabilities, as which the watching service runs, may not do this: run sidemirror apply, or chown 0:0 it"
	case errors.Is(err, fs.ErrPermission):
		p.Code, p.Hint = "permission-denied", "run as root"
	case errors.Is(err, unix.EIO):
		p.Code, p.Hint = "disk-error", "the disk reports errors: see dmesg"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		p.Code, p.Hint = "disk-full", "free space on that disk"
	}
	return p
}
