package credential

import "context"

const fileKind = "file"

// File is a docker config.json or a containers auth.json that another program
// writes. It must be a regular file of at most 1 MiB that belongs to root or to our
// user, that no other can write to, and, where it holds secrets, not every user can
// read; a symbolic link must stay in its folder.
//
// "auths" is read, with "auth", "username" and "password", or "identitytoken"; what
// only a credential helper knows ("credsStore", "credHelpers") is not known here,
// and a "registrytoken" alone is an error. Keys are as [ParseKey] has them, others
// are passed over.
//
// A changed file is read again by the next Lookup. While it is in trouble the last
// good content is served and Fault says what is wrong; until there is any, Lookup
// gives the error itself. A file that is not there knows nothing.
type File struct {
	Path    string
	content watched
}

// Lookup is [Source.Lookup].
func (f *File) Lookup(_ context.Context, registry, repository string) (Credential, error) {
	return f.content.lookup(f.place(), registry, repository)
}

// Fault returns what is wrong with the file now and how to fix it, or nil. Where
// the file is absent it is an fs.ErrNotExist.
func (f *File) Fault() error { return f.content.trouble(f.place()) }

func (f *File) place() place { return place{fileKind, f.Path} }
