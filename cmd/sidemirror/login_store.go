package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/credential/sealed"
)

// loginStores are where login stores: encrypted in a folder of files, if this is root on a host that
// can do that, and otherwise in the file that credentials.store names.
type loginStores struct {
	file     *credential.Store
	path     string
	sealed   *sealed.Store // nil if logins are in the file alone
	services interface {
		RunsBefore(ctx context.Context, unit, arg string) (bool, error)
	}
}

// openLoginStores returns the stores of this host. An administrator who has set credentials.store
// wants that file.
func openLoginStores(c *config.Config) *loginStores {
	s := &loginStores{file: credential.OpenStore(c.Credentials.Store), path: c.Credentials.Store, services: sdnotify.Units{}}
	if os.Geteuid() == 0 && c.Credentials.Store == config.Default().Credentials.Store {
		s.sealed = sealed.Open(sealed.Folder, sealed.Decrypted)
	}
	return s
}

// put stores a login and returns the file that has it. If that is not encrypted, although this could
// have been the place for it, note says why.
func (s *loginStores) put(ctx context.Context, key string, c credential.Credential) (file string, note *problem.Problem, err error) {
	if s.sealed == nil {
		return s.path, nil, s.file.Put(ctx, key, c)
	}
	why := s.unfit(ctx)
	if why == nil {
		file, why = s.sealed.Put(ctx, key, c)
	}
	if file != "" { // also if the running service could not be given it
		if err := s.file.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return file, nil, err
		}
		if why != nil {
			why = &problem.Problem{Code: "login-needs-restart", Text: "the running service does not use the login yet", Err: why, Hint: "systemctl restart sidemirror"}
		}
		return file, problemOrNil(why), nil
	}
	if err := s.file.Put(ctx, key, c); err != nil {
		return "", nil, err
	}
	if err := s.sealed.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("deleting the former login for %s: %w", key, err)
	}
	if err := s.sealed.PutName(ctx, key); err != nil {
		why = fmt.Errorf("%w; and \"sidemirror watch\" cannot find out that there is one: %w", why, err)
	}
	return s.path, &problem.Problem{Code: "login-not-encrypted", Text: "the login is stored unencrypted, readable by sidemirror's user only", Err: why}, nil
}

func problemOrNil(err error) *problem.Problem {
	if err == nil {
		return nil
	}
	return problem.Coded(err, "login")
}

// unfit returns why no login can be encrypted here, or nil.
func (s *loginStores) unfit(ctx context.Context) error {
	if err := s.sealed.Usable(); err != nil {
		return err
	}
	decrypts, err := s.services.RunsBefore(ctx, sdnotify.ProxyUnit, decryptName)
	if err != nil {
		return fmt.Errorf("systemd cannot be asked whether the service could decrypt it: %w", err)
	}
	if !decrypts {
		return fmt.Errorf("%s does not run \"sidemirror %s\" and could not decrypt it", sdnotify.ProxyUnit, decryptName)
	}
	return nil
}

// remove deletes the login for key, wherever it is. If there is none the error is an fs.ErrNotExist.
func (s *loginStores) remove(ctx context.Context, key string) error {
	err := s.file.Delete(ctx, key)
	if s.sealed == nil {
		return err
	}
	sealedErr := s.sealed.Delete(ctx, key)
	for _, e := range []error{err, sealedErr} {
		if e != nil && !errors.Is(e, fs.ErrNotExist) {
			return e
		}
	}
	if err == nil {
		return nil
	}
	return sealedErr
}

// keys returns the keys of all logins.
func (s *loginStores) keys() ([]string, error) {
	users, err := s.file.List()
	if err != nil {
		return nil, err
	}
	var keys []string
	for key := range users {
		keys = append(keys, key)
	}
	if s.sealed != nil {
		encrypted, err := s.sealed.Keys()
		if err != nil {
			return nil, err
		}
		keys = append(keys, encrypted...)
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// decryptName is the command that the service runs before its main process.
const decryptName = "decrypt-logins"

// newDecryptCommand returns the command that decrypts the logins for the service that is about to
// start. It is hidden because only the unit needs it.
func newDecryptCommand() *cobra.Command {
	return &cobra.Command{
		Use:    decryptName,
		Short:  "Decrypt the stored logins for the service that is about to start",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return sealed.Open(sealed.Folder, sealed.Decrypted).Decrypt(cmd.Context())
		},
	}
}
