package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

func newLogoutCommand(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "logout REGISTRY[/NAMESPACE]",
		Short: "Delete the login for a registry",
		Long: `Delete the login that "sidemirror login" stored under exactly this name. A login for
a namespace of the registry stays until you delete it by its own name. The daemon
stops using the login with the next pull. If there is no such login, logout says
so and exits with 0, as docker does.`,
		Args: oneArg("a registry"),
		RunE: func(cmd *cobra.Command, args []string) error {
			registry, namespace, err := credential.ParseKey(args[0])
			if err != nil {
				return misused(cmd, err)
			}
			c, err := config.Load(g.configPath, os.Environ())
			if err != nil {
				return err
			}
			key := strings.TrimSuffix(registry+"/"+namespace, "/")
			done, err := logout(cmd.Context(), openLoginStores(c), key)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), done)
			}
			return done.write(cmd.OutOrStdout())
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

// loggedOut is what "sidemirror logout --json" prints. docs/json.md describes it.
type loggedOut struct {
	Name    string   `json:"name"`
	Deleted bool     `json:"deleted"`         // there was a login
	Within  []string `json:"still_logged_in"` // logins for namespaces of the same name
	hint    string
}

// logout deletes the login that is stored under key, if there is one.
func logout(ctx context.Context, stores *loginStores, key string) (*loggedOut, error) {
	done := &loggedOut{Name: key, Deleted: true, Within: []string{}}
	if err := stores.remove(ctx, key); errors.Is(err, fs.ErrNotExist) {
		done.Deleted = false
	} else if err != nil {
		return nil, explainStore(err)
	}
	names, err := stores.keys()
	if err != nil {
		return nil, explainStore(err)
	}
	for _, other := range names {
		if strings.HasPrefix(other, key+"/") {
			done.Within = append(done.Within, other)
		}
	}
	if !done.Deleted && len(done.Within) == 0 {
		done.hint = didYouMean(key, names)
	}
	return done, nil
}

func (l *loggedOut) write(w io.Writer) error {
	text := "logged out of " + l.Name + "\n"
	if !l.Deleted {
		text = "not logged in to " + l.Name + "\n"
	}
	if l.hint != "" {
		text += "hint: " + l.hint + "\n"
	}
	if len(l.Within) > 0 {
		text += "still logged in to " + strings.Join(l.Within, ", ") + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}
