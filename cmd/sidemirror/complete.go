package main

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/cache/inventory"
	"github.com/sidemirror/sidemirror/proxy/visitor/users"
)

// completeTimeout limits how long a person waits after the tabulator key for names from the cache.
const completeTimeout = 2 * time.Second

// commonPlatforms are offered even if no image of theirs is stored.
var commonPlatforms = []string{
	"linux/386", "linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/ppc64le", "linux/riscv64", "linux/s390x", "windows/amd64",
}

// completer finds what a word on the command line can be. It is called by the shells' completion and
// prints no errors: what cannot be read is not offered.
type completer struct{ globals *globals }

// complete registers the completions of all commands below root.
func (c completer) complete(root *cobra.Command) {
	arguments := map[string]cobra.CompletionFunc{
		"login":            c.loginNames,
		"logout":           c.logins,
		"pull":             c.pullable,
		"cache ls":         c.stored,
		"cache prune":      c.stored,
		"cache rm":         c.stored,
		"config check":     oneFile("toml"),
		"man":              oneFolder,
		"site user add":    c.siteUsers,
		"site user remove": c.siteUsers,
	}
	flags := map[string]cobra.CompletionFunc{
		"engine":     listOf(func(*cobra.Command) []string { return engineNames }),
		"platform":   listOf(c.platforms),
		"older-than": oneOf("12h", "1d", "7d", "2w", "30d", "90d"),
		"to-size":    oneOf("1GiB", "5GiB", "10GiB", "20GiB", "50GiB"),
		"config":     oneFile("toml"),
		"root":       oneFolder,
		"dir":        oneFolder,
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if f := arguments[commandName(cmd)]; f != nil {
			cmd.ValidArgsFunction = f
		} else if cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 {
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
		cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			f, known := flags[flag.Name]
			if !known {
				f = cobra.NoFileCompletions
			}
			_ = cmd.RegisterFlagCompletionFunc(flag.Name, f) // fails if it is registered already
		})
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
}

// oneOf offers words.
func oneOf(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveKeepOrder)
}

// oneFile offers the files whose names end so.
func oneFile(ending string) cobra.CompletionFunc {
	return cobra.FixedCompletions([]string{ending}, cobra.ShellCompDirectiveFilterFileExt)
}

// oneFolder offers folders.
func oneFolder(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// listOf offers words of which several can be given with commas between them, each once.
func listOf(words func(cmd *cobra.Command) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		before := ""
		if i := strings.LastIndexByte(typed, ','); i >= 0 {
			before = typed[:i+1]
		}
		var offered []string
		for _, word := range words(cmd) {
			if !slices.Contains(strings.Split(before, ","), word) {
				offered = append(offered, before+word)
			}
		}
		return offered, cobra.ShellCompDirectiveNoFileComp
	}
}

// configuration returns the configuration that the command line names, or nil if it cannot be used.
func (c completer) configuration() *config.Config {
	loaded, err := config.Load(c.globals.configPath, os.Environ())
	if err != nil {
		return nil
	}
	return loaded
}

// siteUsers offers the users of the site.
func (c completer) siteUsers(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	loaded := c.configuration()
	if loaded == nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, err := users.Names(cmp.Or(loaded.Site.Users, defaultUsersFile))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// loginNames offers the hosts that a login can be for.
func (c completer) loginNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	loaded := c.configuration()
	if loaded == nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return loginNames(loaded), cobra.ShellCompDirectiveNoFileComp
}

// logins offers the logins that are stored.
func (c completer) logins(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	loaded := c.configuration()
	if loaded == nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, err := openLoginStores(loaded).keys()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// pullable offers the images that are stored and, as the beginning of a name, the registries.
func (c completer) pullable(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	names, directive := c.stored(cmd, args, typed)
	if loaded := c.configuration(); loaded != nil && !strings.Contains(typed, "/") {
		for _, name := range registryNames(loaded) {
			if strings.HasPrefix(name, typed) {
				names = append(names, name+"/")
				directive |= cobra.ShellCompDirectiveNoSpace
			}
		}
	}
	return names, directive
}

// stored offers the images that are stored, and are not on the command line yet.
func (c completer) stored(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, image := range c.images(cmd) {
		name := image.Name()
		// Docker Hub's names are offered as they are usually typed.
		if named, err := reference.ParseNormalizedNamed(name); err == nil && !strings.HasPrefix(name, typed) {
			name = reference.FamiliarString(named)
		}
		if strings.HasPrefix(name, typed) && !slices.Contains(args, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}

// platforms returns those of the stored images, and the usual ones.
func (c completer) platforms(cmd *cobra.Command) []string {
	names := slices.Clone(commonPlatforms)
	for _, image := range c.images(cmd) {
		for _, p := range image.Platforms {
			if platformForm().MatchString(p.Name) {
				names = append(names, p.Name)
			}
		}
	}
	slices.Sort(names)
	return append(slices.Compact(names), "all")
}

// images returns what is stored, if this user may read the cache.
func (c completer) images(cmd *cobra.Command) []inventory.Image {
	f := cacheFlags{globals: c.globals}
	if dir := cmd.Flag("dir"); dir != nil {
		f.dir = dir.Value.String()
	}
	d, err := f.open()
	if err != nil {
		return nil
	}
	defer d.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	var all []inventory.Image
	// What could be read in that time is offered.
	_, _ = inventory.List(ctx, d, func(i inventory.Image) error {
		all = append(all, i)
		return nil
	})
	return all
}
