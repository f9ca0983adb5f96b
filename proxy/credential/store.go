package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

const storeKind = "store"

// Store is sidemirror's own file, which login and logout write: Docker's config.json with "auths"
// alone, and keys as [ParseKey] returns them. It is read under the rules of [File], and may belong
// to the owner of its folder too.
type Store struct {
	path    string
	content watched
}

// OpenStore returns the store at path. It reads nothing yet. A store that does not exist is empty,
// and the first Put makes it.
func OpenStore(path string) *Store { return &Store{path: path} }

// LookEvery is [File.LookEvery].
func (s *Store) LookEvery(d time.Duration) { s.content.every = d }

// Lookup is [Source.Lookup].
func (s *Store) Lookup(ctx context.Context, registry, repository string) (Credential, error) {
	return s.content.lookup(ctx, s.place(), registry, repository)
}

// Fault returns what is wrong with the store now, with what to do about it, or nil.
func (s *Store) Fault() error {
	if err := s.content.trouble(s.place()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// List returns the keys of the logins and their usernames, "" where there is an identity token only
// or the entry is of no use.
func (s *Store) List() (map[string]string, error) {
	doc, err := s.content.current(s.place())
	if err != nil {
		return nil, err
	}
	users := make(map[string]string, len(doc.entries))
	for _, e := range doc.entries {
		if e.empty() {
			continue
		}
		users[joinKey(e.registry, e.namespace)] = e.credential.Username
	}
	return users, nil
}

// Put stores c, which the registry has just accepted, as the login for key, and replaces an older
// one. It is on the disk when Put returns; after an error the older one still is. Material that
// was stored before is a new generation, so that what was refused before is tried again.
func (s *Store) Put(ctx context.Context, key string, c Credential) error {
	registry, namespace, err := ParseKey(key)
	if err != nil {
		return fmt.Errorf("storing a login: %w", err)
	}
	key = joinKey(registry, namespace)
	value, err := encodeLogin(c, time.Now().UTC().Format(time.RFC3339Nano))
	if err != nil {
		return fmt.Errorf("storing the login for %s: %w", key, err)
	}
	err = s.change(ctx, func(auths map[string]json.RawMessage) error {
		removeKey(auths, registry, namespace)
		auths[key] = value
		return nil
	})
	if err != nil {
		return fmt.Errorf("storing the login for %s in %s: %w", key, s.path, err)
	}
	return nil
}

// Delete deletes the login for key, and only that: those for namespaces in it stay. If there is none
// the error is an fs.ErrNotExist. It works on a full disk too.
func (s *Store) Delete(ctx context.Context, key string) error {
	registry, namespace, err := ParseKey(key)
	if err != nil {
		return fmt.Errorf("deleting a login: %w", err)
	}
	err = s.change(ctx, func(auths map[string]json.RawMessage) error {
		if !removeKey(auths, registry, namespace) {
			return fs.ErrNotExist
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("deleting the login for %s in %s: %w", joinKey(registry, namespace), s.path, err)
	}
	return nil
}

func (s *Store) place() place { return place{kind: storeKind, path: s.path} }

// removeKey removes every spelling of the key.
func removeKey(auths map[string]json.RawMessage, registry, namespace string) (removed bool) {
	for key := range auths {
		r, n, err := ParseKey(key)
		if err == nil && r == registry && n == namespace {
			delete(auths, key)
			removed = true
		}
	}
	return removed
}
