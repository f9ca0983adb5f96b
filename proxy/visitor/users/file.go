package users

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/secret"
)

const (
	maxFile  = 1 << 20
	maxUsers = 10_000

	// maxCost is the highest cost of a hash: one check of it takes about a second.
	maxCost = 14

	// filler completes a hash that no password has been found for.
	filler = "abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZabcde"
)

// list is what a file of htpasswd says.
type list struct {
	names  []string // in the order of the lines
	hashes map[string]secret.Secret
	decoy  secret.Secret // checked for a user who does not exist
}

// readFile reads a file of htpasswd. The file is whole or is not used.
func readFile(path string) (*list, *problem.Problem) {
	data, hint, err := contents(path)
	if err != nil {
		return nil, &problem.Problem{
			Code: "site-users-unreadable", Path: path, Text: "the users of the site cannot be read", Hint: hint, Err: err,
		}
	}
	l, p := parse(data)
	if p != nil {
		p.Path = path
		return nil, p
	}
	return l, nil
}

// CheckFile returns why the file at path cannot be used; nil if it can.
func CheckFile(path string) *problem.Problem {
	_, wrong := readFile(path)
	return wrong
}

// contents reads the file at path, if it is one that no other user can write. hint says what to do
// about an error.
func contents(path string) (data []byte, hint string, err error) {
	// O_NONBLOCK: opening a pipe must not wait for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "create it: sudo sidemirror site user add NAME", err
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Sprintf("let the user that sidemirror runs as read it: chgrp sidemirror %s && chmod 0640 %[1]s", path), err
	case err != nil:
		return nil, "set users in [site] to a file of htpasswd", err
	}
	defer f.Close()
	return readTrusted(f, path)
}

// readTrusted reads the file f, which is at path, if no other user can write it.
func readTrusted(f *os.File, path string) (data []byte, hint string, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, "", err
	}
	if !info.Mode().IsRegular() {
		return nil, "set users in [site] to a file of htpasswd", errors.New("it is not a regular file")
	}
	if hint, err := trusted(info, path); err != nil {
		return nil, hint, err
	}
	data, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		return nil, "let a reverse proxy check the logins of so many users", fmt.Errorf("it is longer than %d bytes", maxFile)
	}
	return data, "", err
}

// trusted returns an error if another user can write a file or a folder, and what to do about it.
func trusted(info fs.FileInfo, path string) (hint string, err error) {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return "chmod go-w " + path, fmt.Errorf("others may write to it (mode %04o)", mode)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 && int(uid) != os.Geteuid() {
		return "chown root " + path, fmt.Errorf("it belongs to uid %d, who is neither root nor the user that sidemirror runs as", uid)
	}
	return "", nil
}

// parse reads lines of NAME:HASH. Empty lines and those that begin with "#" are ignored.
func parse(data []byte) (*list, *problem.Problem) {
	l := &list{hashes: make(map[string]secret.Secret)}
	cost := bcrypt.MinCost
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimRight(string(line), "\r\n \t")
		if text == "" || text[0] == '#' {
			continue
		}
		name, hash, _ := strings.Cut(text, ":")
		of, wrong := entryOf(name, hash)
		switch {
		case wrong != nil:
		case !l.hashes[name].IsZero():
			wrong = faulty(fmt.Sprintf("the user %q is there twice", name), "remove one of the lines")
		case len(l.hashes) == maxUsers:
			wrong = faulty(fmt.Sprintf("there are more than %d users", maxUsers), "let a reverse proxy check the logins of so many")
		}
		if wrong != nil {
			wrong.Line = number
			return nil, wrong
		}
		l.names = append(l.names, name)
		l.hashes[name] = secret.New(hash)
		cost = max(cost, of)
	}
	l.decoy = secret.New(fmt.Sprintf("$2a$%02d$%s", cost, filler))
	return l, nil
}

// entryOf checks a line of a file and returns the cost of its hash.
func entryOf(name, hash string) (cost int, wrong *problem.Problem) {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return 0, faulty("the line does not begin with the name of a user and a colon", "remove the line; sudo sidemirror site user add NAME writes one")
	}
	again := fmt.Sprintf("hash the password again: sudo sidemirror site user add '%s'", name)
	if !strings.HasPrefix(hash, "$2") {
		return 0, faulty(fmt.Sprintf("the password of %q is not hashed with bcrypt", name), again)
	}
	cost, err := bcrypt.Cost([]byte(hash))
	const length = 60
	switch {
	case err != nil || len(hash) != length || strings.ContainsFunc(hash[len("$2y$05$"):], notInHash):
		return 0, faulty(fmt.Sprintf("the hash of %q is damaged", name), again)
	case cost > maxCost:
		return 0, faulty(fmt.Sprintf("the hash of %q has cost %d, and a check of it would take too long: %d is the highest", name, cost, maxCost), again)
	}
	return cost, nil
}

func notInHash(c rune) bool {
	return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '/')
}

func faulty(text, hint string) *problem.Problem {
	return &problem.Problem{Code: "site-users-unreadable", Text: text, Hint: hint}
}
