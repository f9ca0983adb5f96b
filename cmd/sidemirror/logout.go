package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

func newLogoutCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "logout REGISTRY[/NAMESPACE]",
		Short: "Forget the login for a registry",
		Long: `Forget the login that "sidemirror login" kept under exactly this name. Logins for
namespaces of a registry are forgotten one by one. The daemon stops using it with
the next pull. That there was none to forget is told, and is no failure: it is
gone (exit 0), as with docker.`,
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
			key := strings.TrimSuffix(registry+"/"+namespace, "/")
			return logout(cmd, credential.OpenStore(c.Credentials.Store), key)
		},
	}
}

func logout(cmd *cobra.Command, store *credential.Store, key string) error {
	err := store.Delete(cmd.Context(), key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintf(cmd.OutOrStdout(), "not logged in to %s\n", key)
	case err != nil:
		return explainStore(err)
	default:
		fmt.Fprintf(cmd.OutOrStdout(), "logged out of %s\n", key)
	}
	users, err := store.List()
	if err != nil {
		return explainStore(err)
	}
	var within []string
	for other := range users {
		if strings.HasPrefix(other, key+"/") {
			within = append(within, other)
		}
	}
	slices.Sort(within)
	if len(within) > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "still logged in to %s\n", strings.Join(within, ", "))
	}
	return nil
}
