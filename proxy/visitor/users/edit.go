package users

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/durable"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/secret"
)

const (
	// cost is that of the hashes that Set makes: a check takes some 50 milliseconds.
	cost = 10

	// longest is how many bytes of a password bcrypt uses.
	longest = 72

	// header is the first line of a file that Set creates. A purge of the packages goes by it.
	header = "# By \"sidemirror site user\". The lines are those of htpasswd -B.\n"

	// account is the user that the daemon runs as, and its group.
	account = "sidemirror"
)

// Change is what Set or Remove has done.
type Change struct {
	Existed bool // the user was there before
	Left    int  // so many users there are now

	// Unreadable says that the daemon cannot read the file; nil if it can.
	Unreadable *problem.Problem
}

// Set adds a user to the file at path, which it creates if there is none, or changes the user's
// password. All other lines stay as they are.
func Set(ctx context.Context, path, name string, password secret.Secret) (Change, error) {
	if err := CheckName(name); err != nil {
		return Change{}, err
	}
	hash, err := hashOfPassword(password)
	if err != nil {
		return Change{}, err
	}
	if err := create(ctx, path); err != nil {
		return Change{}, err
	}
	return edit(ctx, path, func(data []byte) ([]byte, bool) { return withUser(data, name, hash) })
}

// Remove removes a user from the file at path. All other lines stay as they are.
func Remove(ctx context.Context, path, name string) (Change, error) {
	return edit(ctx, path, func(data []byte) ([]byte, bool) { return withoutUser(data, name) })
}

// Names returns the names of the users in the file at path, in its order. It refuses what Set and
// Remove refuse; a missing file is [fs.ErrNotExist].
func Names(path string) ([]string, error) {
	folder, err := openFolder(path)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	f, data, err := openIn(folder, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l, wrong := parse(data)
	if wrong != nil {
		wrong.Path = path
		return nil, wrong
	}
	return l.names, nil
}

// CheckName returns an error if a user cannot have a name.
func CheckName(name string) error {
	var why string
	switch {
	case name == "":
		why = "is empty"
	case len(name) > maxName:
		why = fmt.Sprintf("is longer than %d bytes", maxName)
	case strings.Contains(name, ":"):
		why = "has a colon, which ends the name in a login"
	case strings.HasPrefix(name, "#"):
		why = "begins with #, as comments do"
	case name != strings.TrimSpace(name):
		why = "begins or ends with a space"
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }):
		why = "has a character that cannot be printed"
	default:
		return nil
	}
	return &problem.Problem{Code: "site-user-name", Text: "the name of the user " + why, Hint: "use another name, such as alice"}
}

// CheckPassword returns an error if a user cannot have a password.
func CheckPassword(password secret.Secret) error {
	text := password.Reveal()
	switch {
	case text == "":
		return &problem.Problem{Code: "site-user-password", Text: "the password is empty", Hint: "use another password"}
	case len(text) > longest:
		return &problem.Problem{
			Code: "site-user-password", Text: fmt.Sprintf("the password has %d bytes, and bcrypt uses only the first %d", len(text), longest),
			Hint: "use a shorter password",
		}
	case strings.ContainsFunc(text, unicode.IsControl):
		return &problem.Problem{
			Code: "site-user-password", Text: "the password has a control character, such as a line end, which clients cannot send",
			Hint: "use another password, of one line",
		}
	}
	return nil
}

func hashOfPassword(password secret.Secret) (string, error) {
	if err := CheckPassword(password); err != nil {
		return "", err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password.Reveal()), cost)
	if err != nil {
		return "", fmt.Errorf("hashing the password: %w", err)
	}
	// This is how htpasswd and other servers name the same algorithm.
	return strings.Replace(string(hash), "$2a$", "$2y$", 1), nil
}

// create makes a file without users at path, unless something is there.
func create(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return unusable(path, "", err)
	}
	folder, err := openFolder(path)
	if err != nil {
		return err
	}
	defer folder.Close()
	if exists(folder, path) {
		return nil
	}
	// The temporary file has the same name in all processes.
	if err := durable.Lock(ctx, folder); err != nil {
		return unusable(path, "", err)
	}
	if exists(folder, path) {
		return nil
	}
	err = durable.Replace(folder, filepath.Base(path), []byte(header), durable.Options{New: true, Prepare: func(f *os.File) error {
		if _, gid, ok := daemonIDs(); ok && os.Geteuid() == 0 {
			if err := f.Chown(0, gid); err != nil {
				return err
			}
		}
		return f.Chmod(0o640)
	}})
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return unusable(path, "", err)
	}
	return nil
}

// exists reports whether there is something at path. Opening it says what is wrong with it.
func exists(folder *os.File, path string) bool {
	err := unix.Fstatat(int(folder.Fd()), filepath.Base(path), new(unix.Stat_t), unix.AT_SYMLINK_NOFOLLOW)
	return !errors.Is(err, unix.ENOENT)
}

// edit replaces the file at path by what change makes of it, if that can be used. Two processes that
// do so at once do it one after the other.
func edit(ctx context.Context, path string, change func([]byte) (after []byte, existed bool)) (Change, error) {
	folder, err := openFolder(path)
	if err != nil {
		return Change{}, err
	}
	defer folder.Close()
	f, data, err := openLocked(ctx, folder, path)
	if err != nil {
		return Change{}, err
	}
	defer f.Close()
	after, existed := change(data)
	l, wrong := parse(after)
	if wrong == nil && len(after) > maxFile {
		wrong = faulty(fmt.Sprintf("the file would be longer than %d bytes", maxFile), "let a reverse proxy check the logins of so many users")
	}
	if wrong != nil {
		wrong.Path = path
		return Change{}, fmt.Errorf("nothing was written: %w", wrong)
	}
	info, err := f.Stat()
	if err != nil {
		return Change{}, unusable(path, "", err)
	}
	done := Change{Existed: existed, Left: len(l.names), Unreadable: unreadable(path, info)}
	if bytes.Equal(after, data) {
		return done, nil
	}
	err = durable.Replace(folder, filepath.Base(path), after, durable.Options{Prepare: func(next *os.File) error {
		owner := info.Sys().(*syscall.Stat_t)
		if err := next.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
		return next.Chmod(info.Mode().Perm())
	}})
	if err != nil {
		return Change{}, unusable(path, "", err)
	}
	return done, nil
}

// openLocked opens the file at path and locks it. A file that was replaced meanwhile it opens again.
func openLocked(ctx context.Context, folder *os.File, path string) (*os.File, []byte, error) {
	for {
		f, _, err := openIn(folder, path)
		if err != nil {
			return nil, nil, err
		}
		if err := durable.Lock(ctx, f); err != nil {
			f.Close()
			return nil, nil, unusable(path, "", err)
		}
		locked, data, err := openIn(folder, path)
		if err != nil {
			f.Close()
			return nil, nil, err
		}
		same, err := sameFile(f, locked)
		locked.Close()
		if err != nil {
			f.Close()
			return nil, nil, unusable(path, "", err)
		}
		if same {
			return f, data, nil
		}
		f.Close()
	}
}

func sameFile(a, b *os.File) (bool, error) {
	first, err := a.Stat()
	if err != nil {
		return false, err
	}
	second, err := b.Stat()
	return os.SameFile(first, second), err
}

// openFolder opens the folder of the file at path, if no other user can exchange the file there.
func openFolder(path string) (*os.File, error) {
	name := filepath.Dir(path)
	folder, err := os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, unusable(path, "", err)
	}
	info, err := folder.Stat()
	if err == nil {
		var hint string
		hint, err = trusted(info, name)
		if err == nil {
			return folder, nil
		}
		err = unusable(path, hint, fmt.Errorf("its folder: %w", err))
	}
	folder.Close()
	return nil, err
}

// openIn opens and reads the file at path in its folder. It follows no link.
func openIn(folder *os.File, path string) (*os.File, []byte, error) {
	fd, err := unix.Openat(int(folder.Fd()), filepath.Base(path), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ELOOP):
		return nil, nil, unusable(path, "set users in [site] to the file that the link leads to", errors.New("it is a link"))
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, unusable(path, "sudo sidemirror site user add NAME", err)
	case err != nil:
		return nil, nil, unusable(path, "", err)
	}
	f := os.NewFile(uintptr(fd), path)
	data, hint, err := readTrusted(f, path)
	if err != nil {
		f.Close()
		return nil, nil, unusable(path, hint, err)
	}
	return f, data, nil
}

func unusable(path, hint string, err error) *problem.Problem {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return &problem.Problem{Code: "not-root", Path: path, Text: "editing the users of the site", Err: err, Hint: "run as root"}
	}
	return &problem.Problem{Code: "site-users-unusable", Path: path, Text: "the users of the site cannot be changed", Hint: hint, Err: err}
}

// unreadable returns a problem if the daemon, which does not run as root, cannot read a file.
func unreadable(path string, info fs.FileInfo) *problem.Problem {
	uid, gid, ok := daemonIDs()
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	owner, needed := info.Sys().(*syscall.Stat_t), fs.FileMode(0o004)
	switch {
	case int(owner.Uid) == uid:
		needed = 0o400
	case int(owner.Gid) == gid:
		needed = 0o040
	}
	if info.Mode()&needed != 0 {
		return nil
	}
	return &problem.Problem{
		Code: "site-users-unreadable", Path: path, Text: "the user " + account + " cannot read it, and so neither can the daemon",
		Hint: fmt.Sprintf("chgrp %s %s && chmod 0640 %[2]s", account, path),
	}
}

// daemonIDs returns the user and the group that the daemon runs as, as the packages make them.
func daemonIDs() (uid, gid int, ok bool) {
	found, err := user.Lookup(account)
	if err != nil {
		return 0, 0, false
	}
	uid, err = strconv.Atoi(found.Uid)
	if err != nil {
		return 0, 0, false
	}
	gid, err = strconv.Atoi(found.Gid)
	return uid, gid, err == nil
}
