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
		Short: "Delete the login for a registry",
		Long: `Delete the login that "sidemirror login" stored under exactly this name. A login for
a namespace of the registry stays until you delete it by its own name. The daemon
stops using the login with the next pull. If there is no such login, logout says
so and exits with 0, as docker does.`,
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
