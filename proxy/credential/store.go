package credential

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

const storeKind = "store"

// Store is sidemirror's own file, which login and logout write: docker's
// config.json with "auths" alone, keys as [ParseKey] gives them. It is read under
// the rules of [File], and may belong to the owner of its folder too.
type Store struct {
	path    string
	content watched
}

// OpenStore is the store at path. It reads nothing yet; a store that is not there
// is empty, and made by the first Put.
func OpenStore(path string) *Store { return &Store{path: path} }

// Lookup is [Source.Lookup].
func (s *Store) Lookup(_ context.Context, registry, repository string) (Credential, error) {
	return s.content.lookup(s.place(), registry, repository)
}

// Fault returns what is wrong with the store now, with what to do about it, or nil.
func (s *Store) Fault() error {
	if err := s.content.trouble(s.place()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// List gives the keys of the logins and their usernames, "" where there is an
// identity token only or the entry is of no use.
func (s *Store) List() (map[string]string, error) {
	entries, err := s.content.current(s.place())
	if err != nil {
		return nil, err
	}
	users := make(map[string]string, len(entries))
	for _, e := range entries {
		users[joinKey(e.registry, e.namespace)] = e.credential.Username
	}
	return users, nil
}

// Put keeps c as the login for key, in the place of an older one. It is on the
// disk when Put returns; after an error the older one still is.
func (s *Store) Put(ctx context.Context, key string, c Credential) error {
	registry, namespace, err := ParseKey(key)
	if err != nil {
		return fmt.Errorf("keeping a login: %w", err)
	}
	key = joinKey(registry, namespace)
	value, err := encodeLogin(c)
	if err != nil {
		return fmt.Errorf("keeping the login for %s: %w", key, err)
	}
	err = s.change(ctx, func(auths map[string]json.RawMessage) error {
		removeKey(auths, registry, namespace)
		auths[key] = value
		return nil
	})
	if err != nil {
		return fmt.Errorf("keeping the login for %s in %s: %w", key, s.path, err)
	}
	return nil
}

// Delete forgets the login for key, and only that: those for namespaces in it
// stay. Where there is none the error is an fs.ErrNotExist.
func (s *Store) Delete(ctx context.Context, key string) error {
	registry, namespace, err := ParseKey(key)
	if err != nil {
		return fmt.Errorf("forgetting a login: %w", err)
	}
	err = s.change(ctx, func(auths map[string]json.RawMessage) error {
		if !removeKey(auths, registry, namespace) {
			return fs.ErrNotExist
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("forgetting the login for %s in %s: %w", joinKey(registry, namespace), s.path, err)
	}
	return nil
}

func (s *Store) place() place { return place{storeKind, s.path} }

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

// encodeLogin is the inverse of parseLogin, and refuses what would not come back
// as it was: a colon in the username, control characters.
func encodeLogin(c Credential) (json.RawMessage, error) {
	if c.IsZero() {
		return nil, errors.New("there is neither a username nor a secret")
	}
	fields := map[string]string{}
	if c.Username != "" || !c.Password.IsZero() {
		fields["auth"] = base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password.Reveal()))
	}
	if !c.IdentityToken.IsZero() {
		fields["identitytoken"] = c.IdentityToken.Reveal()
	}
	value, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	back, err := parseLogin(value)
	if err != nil {
		return nil, err
	}
	if back.Username != c.Username || !back.Password.Equal(c.Password) || !back.IdentityToken.Equal(c.IdentityToken) {
		return nil, errors.New("the username or a secret has characters that a login cannot have: a colon in the username, zero bytes, text that is not UTF-8")
	}
	return value, nil
}
