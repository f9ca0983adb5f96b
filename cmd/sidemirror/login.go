package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// loginTimeout limits the check of a login, including the token server's part.
const loginTimeout = time.Minute

// identityUser is docker's name for a login whose password is an identity token.
const identityUser = "<token>"

func newLoginCommand(g *globals) *cobra.Command {
	var username string
	var fromStdin, asJSON bool
	cmd := &cobra.Command{
		Use:   "login REGISTRY[/NAMESPACE]",
		Short: "Store a login for a registry, after the registry has accepted it",
		Long: `Check a username and password with the registry, and store them for the daemon. A login
is for the host that it names, and is sent nowhere else: a mirror of the registry has a
login of its own. A login with a namespace is for the repositories in that namespace
only. If several match, the daemon uses the longest.

A registry that the configuration does not name is served while its login is stored: at
its own host, over HTTPS, to trusted callers. The engines on this host are configured for
it too.

If systemd-creds is installed, it encrypts the login with a key of this host that only
root can read, and the service decrypts it when it starts. Otherwise, or if the
configuration sets credentials.store, the login is stored unencrypted in that file,
readable by sidemirror's user only.

sidemirror asks for the password on the terminal, or reads it from standard input with
--password-stdin. There is no flag for it, because other users can read a command
line. If the registry refuses the login or cannot be reached, nothing is stored, and
an earlier login stays.

If Docker on this host can use sidemirror for Docker Hub only, login says so first, and
how to pull from the registry with this login.`,
		Example: `  sudo sidemirror login docker.io -u alice
  sudo sidemirror login ghcr.io/alice -u alice --password-stdin <token`,
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
			if err := served(c, registry); err != nil {
				return err
			}
			if note := hubOnlyNote(cmd.Context(), g, c, registry); note != nil {
				if err := writeNotes(cmd.ErrOrStderr(), []*problem.Problem{note}); err != nil {
					return err
				}
			}
			in := prompt{in: cmd.InOrStdin(), out: cmd.ErrOrStderr()}
			given, err := in.credential(username, fromStdin)
			if err == nil {
				err = credential.Check(given) // before the registry is asked
			}
			if err != nil {
				return misused(cmd, err)
			}
			done, err := login(cmd.Context(), c, registry, namespace, given)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), done)
			}
			return done.write(cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVarP(&username, "username", "u", "", "log in as this `user`")
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	addJSON(cmd, &asJSON)
	return cmd
}

// hubOnlyNote returns a note if an engine on this host uses sidemirror for Docker Hub only, so that a
// login to another registry serves only those who pull in another way.
func hubOnlyNote(ctx context.Context, g *globals, c *config.Config, registry string) *problem.Problem {
	if registry == oci.DockerHub || registry == oci.DockerHubUpstream {
		return nil
	}
	f := &hostFlags{globals: g, root: "/"}
	h, err := f.host()
	if err != nil || useSockets(ctx, c) != nil {
		return nil // which is not what login is for
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	plan, err := f.planFor(ctx, h, c)
	if err != nil {
		return nil
	}
	return noteHubOnly(plan.Engines, plan.Mirror, registry)
}

func noteHubOnly(engines []engine.State, mirror, registry string) *problem.Problem {
	for _, e := range engines {
		if !e.HubOnly {
			continue
		}
		title := e.Title()
		if e.Version != "" {
			title += " " + e.Version
		}
		return &problem.Problem{
			Code: "login-hub-only", Text: title + " pulls through sidemirror from Docker Hub only: a plain pull from " + registry + " does not use this login",
			Hint: "pull as " + engine.PullPrefix(mirror) + "/" + registry + "/…",
		}
	}
	return nil
}

// served returns an error that says what to do if the daemon would not send a login for registry
// to any upstream. A login belongs to a host: for a registry that is fetched from another host
// only, it would serve nothing.
func served(c *config.Config, registry string) error {
	var instead []string
	for _, r := range c.Registries {
		for _, u := range r.Upstreams {
			if credential.IsFor(u.URL, registry) {
				return nil
			}
			if r.Name == registry {
				host, _ := credential.KeyOf(u.URL)
				instead = append(instead, "sidemirror login "+host)
			}
		}
	}
	if near := misspelt(registry); near != "" && len(instead) == 0 {
		return &problem.Problem{
			Code: "registry-misspelt",
			Text: fmt.Sprintf("%s has no table in %s and looks like %s: sidemirror sends no password there", registry, c.File, near),
			Hint: fmt.Sprintf("sidemirror login %s, or add [registry.%q] to %s if that is a registry of its own", near, registry, c.File),
		}
	}
	if len(instead) == 0 {
		return nil // the login makes the registry known
	}
	return &problem.Problem{
		Code: "login-for-another-host",
		Text: registry + " is fetched from another host, and a login is sent only to the host that it is for",
		Hint: "log in to that host: " + strings.Join(instead, ", or "),
	}
}

// knownByLogin returns a note for a registry that is served because of its login; nil for one that the
// configuration names. found says that sidemirror watch finds the login.
func knownByLogin(c *config.Config, registry string, found bool) *problem.Problem {
	if slices.Contains(loginNames(c), registry) || registry == oci.DockerHub {
		return nil
	}
	note := &problem.Problem{
		Code: "registry-known-by-login",
		Text: registry + " has no table in " + c.File + ": sidemirror serves it to trusted callers until you log out",
	}
	if !found {
		note.Text += ", and cannot configure engines for it, because credentials.store names another file"
		note.Hint = fmt.Sprintf("add [registry.%q] to %s", registry, c.File)
	}
	return note
}

// loggedIn is what "sidemirror login --json" prints. docs/json.md describes it.
type loggedIn struct {
	Name     string             `json:"name"` // the registry, with the namespace if there is one
	Username string             `json:"username"`
	Store    string             `json:"store"`
	Notes    []*problem.Problem `json:"notes"`
}

// login checks the credential and stores it.
func login(ctx context.Context, c *config.Config, registry, namespace string, given credential.Credential) (*loggedIn, error) {
	key := registry
	if namespace != "" {
		key += "/" + namespace
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	info, _ := debug.ReadBuildInfo()
	if err := daemon.Login(ctx, c, registry, namespace, given, buildVersion(info)); err != nil {
		what := "the login to %s could not be checked, and nothing was stored: %w"
		if errors.Is(err, &oci.Error{Code: oci.Unauthorized}) || errors.Is(err, &oci.Error{Code: oci.Denied}) {
			what = "%s refused the login, and nothing was stored: %w"
		}
		hint := didYouMeanRegistry(c, registry, loginNames(c))
		if refusal, ok := errors.AsType[*oci.Error](err); ok && refusal.RetryAfter > 0 {
			hint = fmt.Sprintf("try again in %v, which is how long the registry asks to wait", refusal.RetryAfter)
		}
		return nil, &problem.Problem{Code: "login-failed", Err: fmt.Errorf(what, key, err), Hint: hint}
	}
	stores := openLoginStores(c)
	file, note, err := stores.put(ctx, key, given)
	if err != nil {
		return nil, explainStore(err)
	}
	done := &loggedIn{Name: key, Username: given.Username, Store: file, Notes: []*problem.Problem{}}
	for _, note := range []*problem.Problem{note, knownByLogin(c, registry, stores.sealed != nil)} {
		if note != nil {
			done.Notes = append(done.Notes, note)
		}
	}
	for _, r := range c.Registries {
		if r.Name == registry && r.ClientAuth == "relay" {
			text := fmt.Sprintf("registry.%q has client_auth = \"relay\": clients log in themselves, and this login is not used", registry)
			done.Notes = append(done.Notes, &problem.Problem{Code: "login-not-used", Text: text})
		}
	}
	return done, nil
}

func (l *loggedIn) write(w, notes io.Writer) error {
	who := cmp.Or(l.Username, "the owner of an identity token")
	if _, err := fmt.Fprintf(w, "logged in to %s as %s\nstored in %s; the daemon uses it from the next pull on\n", l.Name, who, l.Store); err != nil {
		return err
	}
	return writeNotes(notes, l.Notes)
}

func explainStore(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return &problem.Problem{Code: "permission", Err: err, Hint: "run this as root"}
	}
	return err
}
