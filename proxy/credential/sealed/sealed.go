// Package sealed stores logins that are encrypted on disk. systemd-creds encrypts each with a key
// that only root can read, so root decrypts them: when the service starts, into a file in memory,
// which the service's own user reads. A login that cannot be decrypted affects its registry only.
package sealed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/internal/durable"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/credential/program"
)

const (
	// Folder is where the encrypted logins of the service are. It belongs to root, so that the
	// service cannot have root decrypt anything else.
	Folder = "/var/lib/sidemirror-logins"

	// Decrypted is the file with the decrypted logins, in the service's RuntimeDirectory=.
	Decrypted = "/run/sidemirror/" + DecryptedName

	// DecryptedName is its name in that folder.
	DecryptedName = "credentials.json"
)

const (
	tool      = "systemd-creds"
	prefix    = "registry-" // as the credentials that the unit can have from systemd
	suffix    = ".cred"
	elsewhere = ".elsewhere" // ends the name of an empty file that stands for a login in another store
	maxName   = 200          // systemd's limit is 255
	maxLogins = 256
	maxFile   = 64 << 10

	// oneRun bounds a run of systemd-creds, which takes some milliseconds. allRuns bounds those at
	// a start of the service, for which engines may be waiting, with the wait for a login under way.
	oneRun  = 10 * time.Second
	allRuns = 5 * time.Second
)

// Store is a folder of encrypted logins.
type Store struct {
	folder, decrypted string
	programs          *program.Runner
}

// Open returns the store in folder, whose logins the service finds decrypted in the file decrypted.
func Open(folder, decrypted string) *Store {
	env := []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	return &Store{folder, decrypted, program.NewRunner([]string{"/usr/bin", "/bin"}, env)}
}

// Usable returns why logins cannot be encrypted on this host, or nil.
func (s *Store) Usable() error {
	if _, err := s.programs.Find(tool); err != nil {
		return errors.New("systemd-creds is not installed, which systemd has from version 250 on")
	}
	info, err := os.Lstat(s.folder)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", s.folder)
	}
	return program.CheckOwner(s.folder, info)
}

// Put encrypts c, which the registry has just accepted, as the login for key, and decrypts it for a
// trial. It returns the path of the file, which is on the disk then. If path is empty, an older login
// still is there. An error with a path says that the running service does not have the login yet.
func (s *Store) Put(ctx context.Context, key string, c credential.Credential) (path string, err error) {
	name, err := nameOf(key)
	if err != nil {
		return "", err
	}
	document, err := credential.EncodeLogin(key, c)
	if err != nil {
		return "", err
	}
	err = s.locked(ctx, func(folder *os.File) error {
		file, err := s.run(ctx, document, "encrypt", "--with-key=host", "--name="+name, "-", "-")
		if err != nil {
			return err
		}
		if back, err := s.run(ctx, file, "decrypt", "--name="+name, "-", "-"); err != nil || !back.Equal(document) {
			return errors.Join(errors.New("what systemd-creds encrypted does not come back as it was"), err)
		}
		if err := durable.Replace(folder, name+suffix, []byte(file.Reveal()), durable.Options{}); err != nil {
			return err
		}
		path = filepath.Join(s.folder, name+suffix)
		if err := removeFile(folder, name+elsewhere); err != nil {
			return err
		}
		return s.change(func(running *credential.Store) error { return running.Put(ctx, key, c) })
	})
	return path, err
}

// Delete deletes the login for key. If there is none the error is an fs.ErrNotExist.
func (s *Store) Delete(ctx context.Context, key string) error {
	name, err := nameOf(key)
	if err != nil {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err) // Put would not have stored it
	}
	return s.locked(ctx, func(folder *os.File) error {
		err := durable.Remove(folder, name+suffix, durable.Options{})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := removeFile(folder, name+elsewhere); err != nil {
			return err
		}
		runErr := s.change(func(running *credential.Store) error { return running.Delete(ctx, key) })
		if errors.Is(runErr, fs.ErrNotExist) {
			runErr = nil
		}
		return errors.Join(err, runErr)
	})
}

// PutName records that another store has a login for key, so that [Registries] returns its registry.
func (s *Store) PutName(ctx context.Context, key string) error {
	name, err := nameOf(key)
	if err != nil {
		return err
	}
	return s.locked(ctx, func(folder *os.File) error {
		return durable.Replace(folder, name+elsewhere, nil, durable.Options{})
	})
}

// removeFile removes a file that may be missing.
func removeFile(folder *os.File, name string) error {
	if err := durable.Remove(folder, name, durable.Options{}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Keys returns the keys of the encrypted logins.
func (s *Store) Keys() ([]string, error) { return keysIn(s.folder, suffix) }

// Registries returns the registries that have a login, by the names of the files in folder: those
// that are encrypted there, and those that PutName recorded. It reads no file.
func Registries(folder string) ([]string, error) {
	keys, err := keysIn(folder, suffix, elsewhere)
	if err != nil {
		return nil, err
	}
	if len(keys) > maxLogins {
		keys = keys[:maxLogins]
	}
	for i, key := range keys {
		keys[i], _, _ = strings.Cut(key, "/")
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// keysIn returns the keys of the files in folder that end in one of suffixes.
func keysIn(folder string, suffixes ...string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, e := range entries {
		for _, suffix := range suffixes {
			if key, ok := keyOf(e.Name(), suffix); ok {
				keys = append(keys, key)
			}
		}
	}
	return keys, nil
}

// Decrypt writes all logins, decrypted, for the service that is about to start. For those that cannot
// be decrypted it writes the reason, and returns it too.
func (s *Store) Decrypt(ctx context.Context) error {
	if _, err := os.Lstat(s.folder); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	all, cancel := context.WithTimeout(ctx, allRuns)
	defer cancel()
	return s.locked(all, func(folder *os.File) error {
		if err := os.Remove(s.decrypted); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the logins of an earlier start: %w", err)
		}
		keys, err := s.Keys()
		if err != nil {
			return err
		}
		var wrong []error
		if len(keys) > maxLogins {
			wrong = append(wrong, fmt.Errorf("there are %d encrypted logins, and those after %s are ignored", len(keys), keys[maxLogins-1]))
			keys = keys[:maxLogins]
		}
		for _, key := range keys {
			wrong = append(wrong, s.decryptOne(all, folder, key))
		}
		return errors.Join(wrong...)
	})
}

func (s *Store) decryptOne(ctx context.Context, folder *os.File, key string) error {
	c, err := s.open(ctx, folder, key)
	// The service must learn the reason also if the time is up.
	return s.change(func(running *credential.Store) error {
		if err == nil {
			return running.Put(context.WithoutCancel(ctx), key, c)
		}
		text := "it is encrypted, and " + err.Error() + `: run "sidemirror login ` + key + `" again`
		stored := running.PutProblem(context.WithoutCancel(ctx), key, text)
		why := &problem.Problem{
			Code: "login-not-decrypted", Path: filepath.Join(s.folder, mustName(key)+suffix), Text: "the login for " + key + " cannot be decrypted",
			Err: err, Hint: "sidemirror login " + key,
		}
		return errors.Join(why, stored)
	})
}

// open returns the decrypted login for key.
func (s *Store) open(ctx context.Context, folder *os.File, key string) (credential.Credential, error) {
	name := mustName(key)
	file, err := readFile(folder, name+suffix)
	if err != nil {
		return credential.Credential{}, err
	}
	document, err := s.run(ctx, file, "decrypt", "--name="+name, "-", "-")
	if err != nil {
		return credential.Credential{}, err
	}
	return credential.DecodeLogin(key, document)
}

// change changes the file with the decrypted logins, if the service runs or is about to.
func (s *Store) change(edit func(*credential.Store) error) error {
	if _, err := os.Lstat(filepath.Dir(s.decrypted)); errors.Is(err, fs.ErrNotExist) {
		return nil // the service decrypts them when it starts
	}
	return edit(credential.OpenStore(s.decrypted))
}

// locked calls f with the folder while no other login, logout or start has it.
func (s *Store) locked(ctx context.Context, f func(folder *os.File) error) error {
	folder, err := os.Open(s.folder)
	if err != nil {
		return err
	}
	defer folder.Close()
	if err := durable.Lock(ctx, folder); err != nil {
		return err
	}
	return f(folder)
}

// run runs systemd-creds and returns what it printed.
func (s *Store) run(ctx context.Context, stdin credential.Secret, args ...string) (credential.Secret, error) {
	out, err := s.programs.Run(ctx, program.Command{Name: tool, Args: args, Stdin: []byte(stdin.Reveal()), Limit: oneRun})
	if err != nil {
		return credential.Secret{}, err
	}
	if out.Status != 0 {
		return credential.Secret{}, fmt.Errorf("systemd-creds %s failed with exit status %d", args[0], out.Status)
	}
	return out.Text, nil
}

// separators are replaced in names of files: no registry's and no repository's name has those.
var separators = []string{"/", "@", ":", "+"}

// nameOf returns the name of the credential with the login for key.
func nameOf(key string) (string, error) {
	registry, namespace, err := credential.ParseKey(key)
	if err != nil {
		return "", err
	}
	name := mustName(strings.TrimSuffix(registry+"/"+namespace, "/"))
	if len(name) > maxName {
		return "", fmt.Errorf("the name %s is too long for a credential of systemd's", key)
	}
	return name, nil
}

func mustName(key string) string { return prefix + strings.NewReplacer(separators...).Replace(key) }

// keyOf is the inverse of nameOf, for the name of a file that ends in suffix. ok is false for another
// file.
func keyOf(file, suffix string) (key string, ok bool) {
	name, hasSuffix := strings.CutSuffix(file, suffix)
	name, hasPrefix := strings.CutPrefix(name, prefix)
	if !hasSuffix || !hasPrefix {
		return "", false
	}
	back := slices.Clone(separators)
	slices.Reverse(back)
	key = strings.NewReplacer(back...).Replace(name)
	canonical, err := nameOf(key)
	return key, err == nil && canonical+suffix == file
}
