package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// version and commit are set with -ldflags "-X main.version=1.2.3" when a package is built, in
// whose binary Go records nothing of git. "go install" leaves them empty; then the version of the
// module counts.
var version, commit string

func newVersionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print version, commit, Go and platform",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return writeVersionJSON(cmd.OutOrStdout())
			}
			return printVersion(cmd.OutOrStdout())
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func writeVersionJSON(w io.Writer) error {
	info, _ := debug.ReadBuildInfo()
	return writeJSON(w, struct {
		Version  string `json:"version"`
		Commit   string `json:"commit"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
	}{buildVersion(info), buildCommit(info), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
}

func printVersion(w io.Writer) error {
	info, _ := debug.ReadBuildInfo()
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "sidemirror\t%s\n", buildVersion(info))
	fmt.Fprintf(tw, "commit\t%s\n", buildCommit(info))
	fmt.Fprintf(tw, "go\t%s\n", runtime.Version())
	fmt.Fprintf(tw, "platform\t%s/%s\n", runtime.GOOS, runtime.GOARCH)
	return tw.Flush()
}

func buildVersion(info *debug.BuildInfo) string {
	switch {
	case version != "":
		return version
	case info != nil && info.Main.Version != "":
		return info.Main.Version
	}
	return "(unknown)"
}

func buildCommit(info *debug.BuildInfo) string {
	if commit != "" {
		return commit
	}
	if info == nil {
		return "(unknown)"
	}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	revision := settings["vcs.revision"]
	if revision == "" {
		return "(unknown)"
	}
	if at := settings["vcs.time"]; at != "" {
		revision += " of " + at
	}
	if settings["vcs.modified"] == "true" {
		revision += ", modified"
	}
	return revision
}
