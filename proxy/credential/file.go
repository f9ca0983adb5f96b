package credential

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	fileKind     = "file"
	passedKind   = "systemd"
	variableKind = "environment"
)

// File is a Docker config.json, a containers auth.json or a .dockercfg that another program writes.
// It must be a regular file of at most 1 MiB that belongs to root or to the daemon's user, that no
// other user can write to, and, if it holds secrets, that not every user can read. A symbolic link
// must stay in its folder.
//
// File reads "auths", with "auth", "username" and "password", or "identitytoken", and asks the
// helpers that "credHelpers" and "credsStore" name. A "registrytoken" alone is an error. Keys are as
// [ParseKey] reads them, and may have the kubelet's wildcards; others are ignored.
//
// A changed file is read again by the next Lookup, see LookEvery. While it has a problem, the last good content is
// used and Fault returns the problem; if there is none, Lookup returns the error. A missing file has
// no logins.
type File struct {
	Path    string
	Helpers Helpers // run the helpers that the file names; nil for none

	kind    string // "" is fileKind
	content watched
}

// LookEvery has one look at the file serve the look-ups of that time, as of a burst of requests. It
// must be called before the first Lookup; without it each of them looks.
func (f *File) LookEvery(d time.Duration) { f.content.every = d }

// Lookup is [Source.Lookup].
func (f *File) Lookup(ctx context.Context, registry, repository string) (Credential, error) {
	return f.content.lookup(ctx, f.place(), registry, repository)
}

// Fault returns what is wrong with the file now, with what to do about it, or nil. If the file is
// missing it returns an fs.ErrNotExist.
func (f *File) Fault() error { return f.content.trouble(f.place()) }

func (f *File) place() place {
	kind := f.kind
	if kind == "" {
		kind = fileKind
	}
	return place{kind, f.Path, f.Helpers}
}

// maxPassed bounds the credentials that systemd passes.
const maxPassed = 64

// Passed returns the credentials called registry-… in dir, which is what systemd names in
// $CREDENTIALS_DIRECTORY: files in the format of Docker's config.json.
func Passed(dir string, helpers Helpers) ([]*File, error) {
	if dir == "" {
		return nil, nil
	}
	found, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("credentials of systemd: %w", err)
	}
	found = slices.DeleteFunc(found, func(e os.DirEntry) bool { return !strings.HasPrefix(e.Name(), "registry-") })
	var files []*File
	for _, e := range found[:min(len(found), maxPassed)] {
		files = append(files, &File{Path: filepath.Join(dir, e.Name()), Helpers: helpers, kind: passedKind})
	}
	if len(found) > maxPassed {
		err = fmt.Errorf("credentials of systemd: there are %d, and those after %s are ignored", len(found), found[maxPassed-1].Name())
	}
	return files, err
}

// Variable is an environment variable with the content of a config.json, as Docker's
// DOCKER_AUTH_CONFIG.
type Variable struct {
	name    string
	content *document
	fault   error
}

// NewVariable returns the logins in text, the value of the variable called name.
func NewVariable(name, text string) *Variable {
	v := &Variable{name: name, content: &document{}}
	if len(text) > documentLimit {
		v.fault = fmt.Errorf("%s: it is longer than %d bytes", name, documentLimit)
		return v
	}
	doc, err := parseDocument(variableKind, []byte(text))
	if err != nil {
		v.fault = fmt.Errorf("%s: %w", name, err)
		return v
	}
	// Docker reads no helper from the variable.
	doc.helpers, doc.store = nil, ""
	v.content = doc
	return v
}

// Lookup is [Source.Lookup].
func (v *Variable) Lookup(ctx context.Context, registry, repository string) (Credential, error) {
	if v.fault != nil {
		return Credential{}, v.fault
	}
	c, err := v.content.find(ctx, nil, registry, repository)
	if err != nil {
		return Credential{}, fmt.Errorf("%s: %w", v.name, err)
	}
	return c, nil
}

// Fault returns what is wrong with the variable, or nil.
func (v *Variable) Fault() error {
	if v.fault != nil {
		return v.fault
	}
	var problems []error
	for _, err := range v.content.problems(nil) {
		problems = append(problems, fmt.Errorf("%s: %w", v.name, err))
	}
	return errors.Join(problems...)
}
