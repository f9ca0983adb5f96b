package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// loginTimeout limits the check of a login, including the token server's part.
const loginTimeout = time.Minute

// identityUser is docker's name for a login whose password is an identity token.
const identityUser = "<token>"

func newLoginCommand(g *globals) *cobra.Command {
	var username string
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "login REGISTRY[/NAMESPACE]",
		Short: "Store a login for a registry, after the registry has accepted it",
		Long: `Check a username and password with the registry, and store them for the daemon in the
file that credentials.store names. A login is for the host that it names, and is sent
nowhere else: a mirror of the registry has a login of its own. A login with a
namespace is for the repositories in that namespace only. If several match, the
daemon uses the longest.

sidemirror asks for the password on the terminal, or reads it from standard input with
--password-stdin. There is no flag for it, because other users can read a command
line. If the registry refuses the login or cannot be reached, nothing is stored, and
an earlier login stays.`,
		Example: `  sudo sidemirror login docker.io -u alice
  sudo sidemirror login ghcr.io/alice -u alice --password-stdin <token`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			registry, namespace, err := credential.ParseKey(args[0])
			if err != nil {
				return flagError(cmd, err)
			}
			c, err := config.Load(g.configPath, os.Environ())
			if err != nil {
				return err
			}
			if err := served(c, registry); err != nil {
				return err
			}
			in := prompt{in: cmd.InOrStdin(), out: cmd.ErrOrStderr()}
			given, err := in.credential(username, fromStdin)
			if err != nil {
				return flagError(cmd, err)
			}
			return login(cmd, c, registry, namespace, given)
		},
	}
	cmd.Flags().StringVarP(&username, "username", "u", "", "log in as this `user`")
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

// served returns an error that says what to do if the daemon would not send a login for registry
// to any upstream. A login belongs to a host: for a registry that is fetched from another host
// only, it would serve nothing.
func served(c *config.Config, registry string) error {
	var instead []string
	for _, r := range c.Registries {
		for _, u := range r.Upstreams {
			if credential.IsFor(u, registry) {
				return nil
			}
			if r.Name == registry {
				host, _ := credential.KeyOf(u)
				instead = append(instead, "sidemirror login "+host)
			}
		}
	}
	if len(instead) > 0 {
		return fmt.Errorf("%s is fetched from another host, and a login is sent only to the host that it is for; log in to that host: %s",
			registry, strings.Join(instead, ", or "))
	}
	if slices.ContainsFunc(c.Registries, func(r config.Registry) bool { return r.Name == config.Wildcard }) {
		return nil
	}
	return fmt.Errorf("registry %s is not configured, so the daemon would not use the login; add this to %s:\n\n[registry.%q]\nupstreams = [%q]",
		registry, c.File, registry, "https://"+registry)
}

// login checks the credential and stores it.
func login(cmd *cobra.Command, c *config.Config, registry, namespace string, given credential.Credential) error {
	key := registry
	if namespace != "" {
		key += "/" + namespace
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), loginTimeout)
	defer cancel()
	info, _ := debug.ReadBuildInfo()
	if err := daemon.Login(ctx, c, registry, namespace, given, buildVersion(info)); err != nil {
		if errors.Is(err, &oci.Error{Code: oci.Unauthorized}) || errors.Is(err, &oci.Error{Code: oci.Denied}) {
			return fmt.Errorf("%s refused the login, and nothing was stored: %w", key, err)
		}
		return fmt.Errorf("the login to %s could not be checked, and nothing was stored: %w", key, err)
	}
	store := credential.OpenStore(c.Credentials.Store)
	if err := store.Put(ctx, key, given); err != nil {
		return explainStore(err)
	}
	who := given.Username
	if who == "" {
		who = "the owner of an identity token"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "logged in to %s as %s\nstored in %s; the daemon uses it from the next pull on\n", key, who, c.Credentials.Store)
	for _, r := range c.Registries {
		if r.Name == registry && r.ClientAuth == "relay" {
			fmt.Fprintf(cmd.ErrOrStderr(), "note: registry.%q has client_auth = \"relay\": clients log in themselves, and this login is not used\n", registry)
		}
	}
	return nil
}

func explainStore(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w (run this as root)", err)
	}
	return err
}
