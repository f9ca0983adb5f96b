package credential

import "context"

const fileKind = "file"

// File is a docker config.json or a containers auth.json that another program writes. It must be a
// regular file of at most 1 MiB that belongs to root or to the daemon's user, that no other user
// can write to, and, if it holds secrets, that not every user can read. A symbolic link must stay in
// its folder.
//
// File reads "auths", with "auth", "username" and "password", or "identitytoken". It knows nothing
// of what only a credential helper has ("credsStore", "credHelpers"). A "registrytoken" alone is an
// error. Keys are as [ParseKey] reads them; others are ignored.
//
// A changed file is read again by the next Lookup. While it has a problem, the last good content is
// used and Fault returns the problem; if there is none, Lookup returns the error. A missing file has
// no logins.
type File struct {
	Path    string
	content watched
}

// Lookup is [Source.Lookup].
func (f *File) Lookup(_ context.Context, registry, repository string) (Credential, error) {
	return f.content.lookup(f.place(), registry, repository)
}

// Fault returns what is wrong with the file now, with what to do about it, or nil. If the file is
// missing it returns an fs.ErrNotExist.
func (f *File) Fault() error { return f.content.trouble(f.place()) }

func (f *File) place() place { return place{fileKind, f.Path} }
