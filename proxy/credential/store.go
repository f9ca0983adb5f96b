package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

const storeKind = "store"

// Store is sidemirror's own file, which login and logout write: Docker's config.json with "auths"
// alone, and keys as [ParseKey] returns them. It is read under the rules of [File], and may belong
// to the owner of its folder too.
type Store struct {
	path    string
	content watched

	decrypted *Store // logins that are encrypted on disk; nil if there are none
	merged    atomic.Pointer[mergedDocument]
}

// mergedDocument is a document and the two that it was made of.
type mergedDocument struct {
	parts [2]*document
	whole *document
}

// OpenStore returns the store at path. It reads nothing yet. A store that does not exist is empty,
// and the first Put makes it.
func OpenStore(path string) *Store { return &Store{path: path} }

// WithDecrypted makes look-ups find the logins in the store at path too. Of two for the same key that
// one is used. Put, Delete and List do not change or list it.
func (s *Store) WithDecrypted(path string) *Store {
	s.decrypted = OpenStore(path)
	return s
}

// LookEvery is [File.LookEvery].
func (s *Store) LookEvery(d time.Duration) {
	s.content.every = d
	if s.decrypted != nil {
		s.decrypted.LookEvery(d)
	}
}

// Lookup is [Source.Lookup].
func (s *Store) Lookup(ctx context.Context, registry, repository string) (Credential, error) {
	if s.decrypted == nil {
		return s.content.lookup(ctx, s.place(), registry, repository)
	}
	own, ownErr := s.content.glance(s.place())
	other, otherErr := s.decrypted.content.glance(s.decrypted.place())
	c, err := s.merge(other, own).find(ctx, nil, registry, repository)
	if err != nil {
		return Credential{}, fmt.Errorf("the store of logins: %w", err)
	}
	if c.IsZero() { // what cannot be read might have had one
		err = errors.Join(ownErr, otherErr)
	}
	return c, err
}

// Has reports whether there is a login for registry, or for a namespace in it.
func (s *Store) Has(registry string) bool {
	registry = oci.CanonicalRegistry(registry)
	for store := s; store != nil; store = store.decrypted {
		doc, err := store.content.glance(store.place())
		if err == nil && slices.ContainsFunc(doc.entries, func(e entry) bool { return !e.wildcard && e.registry == registry && !e.empty() }) {
			return true
		}
	}
	return false
}

// merge returns a document with the entries of both, each of which may be nil.
func (s *Store) merge(first, second *document) *document {
	parts := [2]*document{first, second}
	if m := s.merged.Load(); m != nil && m.parts == parts {
		return m.whole
	}
	whole := &document{}
	for _, part := range parts {
		if part != nil {
			whole.entries = append(whole.entries, part.entries...)
		}
	}
	slices.SortStableFunc(whole.entries, compareEntries)
	s.merged.Store(&mergedDocument{parts, whole})
	return whole
}

// Fault returns what is wrong with the store now, with what to do about it, or nil.
func (s *Store) Fault() error {
	err := s.content.trouble(s.place())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if s.decrypted != nil {
		err = errors.Join(err, s.decrypted.Fault())
	}
	return err
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

// PutProblem stores why the login for key, which exists, cannot be read. A look-up that would have
// found it returns that as an error.
func (s *Store) PutProblem(ctx context.Context, key, why string) error {
	value, err := json.Marshal(map[string]string{"problem": why})
	if err != nil {
		return err
	}
	return s.change(ctx, func(auths map[string]json.RawMessage) error {
		auths[key] = value
		return nil
	})
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
