package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/siteconfig"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/visitor/users"
)

// defaultUsersFile is the file of users that "site user add" makes if site.users is not set.
const defaultUsersFile = "/etc/sidemirror/site.htpasswd"

func newSiteUserCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Say who may log in to the site",
		Long: `Add, remove and list the users of the site. If there are users, other hosts must log in
before they can pull, as with "docker login docker.example.com". The users are in the file
that site.users names, /etc/sidemirror/site.htpasswd by default, as htpasswd -B writes it.
The daemon notices a change within seconds.`,
	}
	cmd.AddCommand(newSiteUserAddCommand(g), newSiteUserRemoveCommand(g), newSiteUserListCommand(g))
	return cmd
}

func newSiteUserAddCommand(g *globals) *cobra.Command {
	var fromStdin, asJSON bool
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user, or change the user's password",
		Long: `Add a user who may log in to the site, or change the password of one who is there. sidemirror
asks for the password twice on the terminal, or reads it from standard input with
--password-stdin. There is no flag for it, because other users can read a command line.
The password has 72 bytes at most, which is what bcrypt uses.

With the first user, the command sets site.users in the configuration: from then on all
visitors must log in. "site disable" removes this setting, and the file stays.`,
		Example: `  sudo sidemirror site user add alice
  sudo sidemirror site user add ci --password-stdin <password`,
		Args: oneArg("the name of a user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := newSiteUsers(g, cmd, asJSON)
			if err != nil {
				return err
			}
			if err := users.CheckName(args[0]); err != nil {
				return misused(cmd, err)
			}
			// Before a person types a password.
			if err := u.usable(); err != nil {
				return err
			}
			password, err := prompt{in: cmd.InOrStdin(), out: cmd.ErrOrStderr()}.newPassword(fromStdin)
			if err == nil {
				err = users.CheckPassword(password)
			}
			if err != nil {
				return misused(cmd, err)
			}
			return u.add(cmd.Context(), args[0], password)
		},
	}
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	addJSON(cmd, &asJSON)
	return cmd
}

func newSiteUserRemoveCommand(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a user, whose access ends at once",
		Long: `Remove a user from the site. The logins and tokens of that user are refused as soon as the
daemon notices it, within seconds. When the last user is removed, no visitor can log in:
the site does not become open to all.`,
		Args: oneArg("the name of a user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := newSiteUsers(g, cmd, asJSON)
			if err != nil {
				return err
			}
			return u.remove(cmd.Context(), args[0])
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func newSiteUserListCommand(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the users of the site",
		Long:  `List the users of the site, one a line, in the order of the file.`,
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := newSiteUsers(g, cmd, asJSON)
			if err != nil {
				return err
			}
			return u.list()
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

// siteUsers is one run of a "site user" command.
type siteUsers struct {
	edit     siteEdit // of the configuration
	file     string   // of the users
	required bool     // site.users is set: visitors must log in
	names    []string // of the site
	notes    io.Writer
}

func newSiteUsers(g *globals, cmd *cobra.Command, asJSON bool) (*siteUsers, error) {
	source := config.Source{Path: g.configPath, Environ: os.Environ()}
	c, err := source.Load()
	if err != nil {
		return nil, err
	}
	return &siteUsers{
		edit: siteEdit{source: source, out: cmd.OutOrStdout(), json: asJSON},
		file: cmp.Or(c.Site.Users, defaultUsersFile), required: c.Site.Users != "", names: c.SiteNames(), notes: cmd.ErrOrStderr(),
	}, nil
}

// siteUserChange is what "sidemirror site user add --json" and "site user remove --json" print.
// docs/json.md describes it.
type siteUserChange struct {
	File     string             `json:"file"`
	User     string             `json:"user"`
	Change   string             `json:"change"`   // "added", "password-changed" or "removed"
	Users    int                `json:"users"`    // that there are now
	Required bool               `json:"required"` // visitors must log in
	Notes    []*problem.Problem `json:"notes"`
}

// usable returns why the file of users cannot be edited; nil if it can, or does not exist yet.
func (u *siteUsers) usable() error {
	if err := explainSite(unix.Access(filepath.Dir(u.file), unix.W_OK)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err := users.Names(u.file)
	if p, ok := errors.AsType[*problem.Problem](err); ok && p.Code == "site-users-unreadable" {
		return nil // a line is faulty, and may be the one that is replaced
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (u *siteUsers) add(ctx context.Context, name string, password credential.Secret) error {
	change, err := users.Set(ctx, u.file, name, password)
	if err != nil {
		return err
	}
	done := siteUserChange{File: u.file, User: name, Change: "added", Users: change.Left, Required: true, Notes: notesOf(change.Unreadable)}
	lines := []string{fmt.Sprintf("%s is added to %s", printable(name), u.file)}
	if change.Existed {
		done.Change = "password-changed"
		lines[0] = fmt.Sprintf("%s was there already, and has a new password in %s", printable(name), u.file)
	}
	if !u.required {
		config, err := u.require(ctx)
		if err != nil {
			return fmt.Errorf("%s is added to %s, and visitors need no login yet: %w", printable(name), u.file, err)
		}
		lines = append(lines, "from now on visitors must log in, because site.users is set in "+config)
	}
	switch {
	case len(u.names) == 0:
		lines = append(lines, "no site is configured yet: sudo sidemirror site enable NAME --accept-terms")
	default:
		lines = append(lines, "to log in on another host: docker login "+u.names[0])
	}
	return u.print(done, lines, done.Notes)
}

// require sets site.users, so that visitors must log in. It returns the file that it has changed.
func (u *siteUsers) require(ctx context.Context) (string, error) {
	done, _, err := u.edit.write(ctx, func(data []byte) ([]byte, error) {
		if _, found := siteconfig.Users(data); found { // another process was faster
			return data, nil
		}
		return siteconfig.Add(data, []siteconfig.Setting{siteconfig.UsersAre(u.file)})
	})
	return done.File, err
}

func (u *siteUsers) remove(ctx context.Context, name string) error {
	change, err := users.Remove(ctx, u.file, name)
	if err != nil {
		return err
	}
	if !change.Existed {
		return &problem.Problem{
			Code: "site-user-unknown", Path: u.file, Text: fmt.Sprintf("there is no user %q", name), Hint: "sudo sidemirror site user list",
		}
	}
	done := siteUserChange{File: u.file, User: name, Change: "removed", Users: change.Left, Required: u.required, Notes: notesOf(change.Unreadable)}
	lines := []string{fmt.Sprintf("%s is removed from %s", printable(name), u.file)}
	if change.Left == 0 && u.required {
		lines = append(lines, "there are no users left, so no visitor can log in", fmt.Sprintf("to serve visitors without a login, remove users from [site] in %s", u.edit.source.File()))
	}
	return u.print(done, lines, done.Notes)
}

// siteUserList is what "sidemirror site user list --json" prints. docs/json.md describes it.
type siteUserList struct {
	File     string   `json:"file"`
	Required bool     `json:"required"`
	Users    []string `json:"users"`
}

func (u *siteUsers) list() error {
	names, err := users.Names(u.file)
	if errors.Is(err, fs.ErrNotExist) && !u.required {
		err = nil
	}
	if err != nil {
		return err
	}
	shown := siteUserList{File: u.file, Required: u.required, Users: slices.Clip(append([]string{}, names...))}
	lines := make([]string, len(names))
	for i, name := range names {
		lines[i] = printable(name)
	}
	var notes []*problem.Problem
	if !u.required {
		notes = append(notes, &problem.Problem{Code: "site-users-off", Text: "site.users is not set, so visitors need no login", Hint: "sudo sidemirror site user add NAME"})
	}
	return u.print(shown, lines, notes)
}

// print prints lines for people, or shown as JSON, and notes for people.
func (u *siteUsers) print(shown any, lines []string, notes []*problem.Problem) error {
	if u.edit.json {
		return writeJSON(u.edit.out, shown)
	}
	if len(lines) > 0 {
		if _, err := fmt.Fprintln(u.edit.out, strings.Join(lines, "\n")); err != nil {
			return err
		}
	}
	return writeNotes(u.notes, notes)
}

// notesOf returns a list without a problem that is nil.
func notesOf(p *problem.Problem) []*problem.Problem {
	if p == nil {
		return []*problem.Problem{}
	}
	return []*problem.Problem{p}
}
