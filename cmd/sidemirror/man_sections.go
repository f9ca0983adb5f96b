package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// manItem is a name and what it means, in a manual page.
type manItem struct{ name, text string }

// Exit codes that mean the same in most commands.
var (
	exitDoneItem   = manItem{"0", "Done."}
	exitFailedItem = manItem{"1", "sidemirror tried and failed. Standard error says what happened and what to do."}
	exitUsageItem  = manItem{"2", "The command line or the configuration is wrong."}
)

// exitStatus are the exit codes of commands where they mean more than that.
var exitStatus = map[string][]manItem{
	planName: {
		{"0", "There is nothing to do."},
		{"1", "The plan cannot be made, or nothing of what is left to do can be done. The command line or the configuration may be wrong."},
		{"2", "There are changes to make, and nothing else is wrong."},
	},
	"apply": {
		{"0", "Every file is as planned."},
		{"1", "A file could not be changed, or an engine did not take its configuration."},
		exitUsageItem,
	},
	"revert": {
		{"0", "No file has an entry of sidemirror's."},
		{"1", "A file could not be restored, or the watcher could not be stopped. Then nothing is restored."},
		exitUsageItem,
	},
	"status": {{"0", "There is no problem."}, {"1", "There are problems."}, exitUsageItem},
	"serve": {
		{"0", "A signal ended it."},
		{"1", "It cannot listen, or failed."},
		{"2", "The command line is wrong, or there is no configuration that can be used."},
	},
	"watch": {{"0", "A signal ended it."}, exitFailedItem, exitUsageItem},
	"login": {
		{"0", "The registry accepted the login, and it is stored."},
		{"1", "The registry refused the login or could not be asked, or the login could not be stored. An earlier login stays."},
		exitUsageItem,
	},
	"setup-buildx":     {{"0", "The file is as it should be."}, {"1", "There is no such bridge, guests.networks does not name it, or the file cannot be edited."}, exitUsageItem},
	"site status":      {{"0", "A site is served, and there is no problem."}, {"1", "There are problems, or no site is served."}, exitUsageItem},
	"site user remove": {{"0", "The user is removed."}, {"1", "There is no such user, or the file could not be changed."}, exitUsageItem},
	"logout":           {{"0", "There is no such login any more."}, {"1", "The login could not be deleted."}, exitUsageItem},
	"pull":             {{"0", "Every image is in the cache."}, {"1", "An image could not be pulled."}, exitUsageItem},
	"cache rm":         {{"0", "The images are removed."}, {"1", "An image is not stored, or could not be removed."}, exitUsageItem},
	"cache verify":     {{"0", "Nothing is damaged."}, {"1", "Something was damaged, and is removed; or the cache could not be read."}, exitUsageItem},
	"cache shared check": {
		{"0", "The shared store can be used."},
		{"1", "There is a problem, or no store is shared."},
		exitUsageItem,
	},
	"config check": {
		{"0", "The configuration can be used, with everything that it names."},
		{"1", "sidemirror would serve without something that the configuration names, such as a credential file."},
		{"2", "The configuration cannot be used, or the command line is wrong."},
	},
}

// exits returns the exit codes of cmd.
func exits(cmd *cobra.Command) []manItem {
	if items := exitStatus[commandName(cmd)]; items != nil {
		return items
	}
	return []manItem{exitDoneItem, exitFailedItem, exitUsageItem}
}

// Commands by what they use.
var (
	usesEngines = []string{"plan", "apply", "revert", "watch", "status"}
	usesCache   = []string{"serve", "pull", "cache", "cache ls", "cache prune", "cache rm", "cache verify"}
	usesLogins  = []string{"serve", "login", "logout"}
	usesNetwork = []string{"serve", "login"}
	usesNothing = []string{"version", "completion"}
)

// uses reports whether cmd is one of commands. The page of the program itself describes them all.
func uses(cmd *cobra.Command, commands []string) bool {
	return !cmd.HasParent() || slices.Contains(commands, commandName(cmd))
}

// variables returns the variables of the environment that matter to cmd.
func variables(cmd *cobra.Command) (items []manItem) {
	if !slices.Contains(usesNothing, commandName(cmd)) {
		items = append(items,
			manItem{"SIDEMIRROR_CONFIG", "The configuration file, unless --config names one."},
			manItem{"SIDEMIRROR_<KEY>", "A key of the configuration, such as SIDEMIRROR_LOG_LEVEL for log.level. It overrides the file."})
	}
	if uses(cmd, usesNetwork) {
		items = append(items, manItem{"HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "The forward proxy for connections to registries. Without it, that of the host's engines is used."})
	}
	if uses(cmd, []string{"serve", "watch"}) {
		items = append(items, manItem{"NOTIFY_SOCKET, WATCHDOG_USEC", "Where systemd wants to be notified, and how often."})
	}
	if uses(cmd, []string{"serve"}) {
		items = append(items, manItem{"LISTEN_FDS, LISTEN_PID", "The sockets that systemd hands over."},
			manItem{"STATE_DIRECTORY", "Where the last valid configuration is stored."},
			manItem{"OTEL_EXPORTER_OTLP_ENDPOINT", "The URL of a receiver of OpenTelemetry traces. Without it, none are made. docs/traces.md describes the other variables of OpenTelemetry."})
	}
	if uses(cmd, []string{"completion"}) {
		items = append(items, manItem{"SIDEMIRROR_COMPLETION_DESCRIPTIONS", "If it is 0, the shell shows names without descriptions."})
	}
	return append(items,
		manItem{"NO_COLOR", "If it is set, no colours are used on the terminal."},
		manItem{"TERM", "If it is dumb, the terminal is treated as a file: no colours, no progress bar, 80 columns."})
}

// usedFiles returns the files that matter to cmd.
func usedFiles(cmd *cobra.Command) (items []manItem) {
	if !slices.Contains(usesNothing, commandName(cmd)) {
		items = append(items, manItem{"/etc/sidemirror/config.toml", "The configuration. Without it the defaults apply."})
	}
	if uses(cmd, usesLogins) {
		items = append(items, manItem{"/var/lib/sidemirror-logins/", "The logins, encrypted."},
			manItem{"/var/lib/sidemirror/credentials.json", "The logins that are not encrypted."})
	}
	if uses(cmd, []string{"serve", "site enable", "site status"}) {
		items = append(items, manItem{"/var/lib/sidemirror/site/", "The certificates of the site that an ACME server has issued."})
	}
	if uses(cmd, []string{"serve", "site user", "site user add", "site user remove", "site user list"}) {
		items = append(items, manItem{"/etc/sidemirror/site.htpasswd", "The users of the site, unless site.users names another file."})
	}
	if uses(cmd, []string{"serve", "status"}) {
		items = append(items, manItem{"/var/lib/sidemirror/", "The last valid configuration is in it."})
	}
	if uses(cmd, usesCache) {
		items = append(items, manItem{"/var/cache/sidemirror/", "What was pulled. It may be removed at any time."})
	}
	if uses(cmd, usesEngines) {
		items = append(items,
			manItem{"/etc/docker/daemon.json, /etc/docker/certs.d/", "Docker's configuration."},
			manItem{"/etc/containerd/config.toml, /etc/containerd/certs.d/", "containerd's configuration."},
			manItem{"/etc/containers/registries.conf.d/000-sidemirror.conf", "The configuration of podman, buildah, skopeo and CRI-O."},
			manItem{"/etc/buildkit/buildkitd.toml", "The configuration of buildkitd."},
			manItem{"/var/lib/sidemirror-hosts/", "What was in the engines' files before sidemirror changed them."})
	}
	if uses(cmd, []string{"setup-buildx"}) {
		items = append(items, manItem{"~/.docker/buildx/buildkitd.default.toml", "The configuration of new builders of docker buildx."})
	}
	if uses(cmd, []string{"completion"}) {
		items = append(items,
			manItem{"/usr/share/bash-completion/completions/sidemirror", "The script for bash that the packages install."},
			manItem{"/usr/share/zsh/site-functions/_sidemirror", "The script for zsh. Debian's package has it in vendor-completions."},
			manItem{"/usr/share/fish/vendor_completions.d/sidemirror.fish", "The script for fish."})
	}
	if uses(cmd, []string{"version"}) {
		items = append(items, manItem{"/usr/share/doc/sidemirror/", "The documentation of this version, and what changed in it."})
	}
	return items
}

// manSection sets a section of names and what they mean. Names of files are in italics.
func manSection(title, font string, items []manItem) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".SH %s", title)
	for _, item := range items {
		fmt.Fprintf(&b, "\n.TP\n.%s \"%s\"\n%s", font, roffLiteral(item.name), roff(item.text))
	}
	return b.String()
}
