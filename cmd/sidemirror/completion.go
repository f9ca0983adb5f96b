package main

import (
	"github.com/spf13/cobra"
)

// shells are those that there is a completion for.
var shells = []string{"bash", "zsh", "fish"}

func newCompletionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a shell's completion script",
		Long: `Print the script with which a shell completes sidemirror's commands and flags, and the
engines, registries, stored images and platforms that they take. Only root can read the names
of stored images and logins. bash needs the package bash-completion.

For this shell only:

  source <(sidemirror completion bash)
  source <(sidemirror completion zsh)
  sidemirror completion fish | source

For every new shell, as root:

  sidemirror completion bash >/usr/share/bash-completion/completions/sidemirror
  sidemirror completion zsh  >/usr/share/zsh/site-functions/_sidemirror
  sidemirror completion fish >/etc/fish/completions/sidemirror.fish`,
		Args:      choiceArg("a shell", shells...),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, w := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "zsh":
				return root.GenZshCompletion(w)
			case "fish":
				return root.GenFishCompletion(w, true)
			}
			return root.GenBashCompletionV2(w, true)
		},
	}
}
