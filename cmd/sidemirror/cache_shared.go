package main

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/shared"
)

func newCacheSharedCommand(f *cacheFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shared",
		Short: "Check the store that hosts share",
		Long:  `Check the object storage by which several hosts share what they pull, [cache.shared].`,
		RunE:  runGroup,
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "Find out whether the shared store can be used",
		Long: `Write an object to the shared store, read it and remove it, and say what is wrong: the
bucket, the credentials, the clock, the policy. It also measures how quickly the store
responds, and whether it knows conditional writes, by which hosts that pull the same
image at the same time fetch it once. The exit code is 1 if there is a problem.`,
		Example: `  sudo sidemirror cache shared check`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.checkShared(cmd) },
	})
	return cmd
}

func (f *cacheFlags) checkShared(cmd *cobra.Command) error {
	c, err := config.Load(f.globals.configPath, os.Environ())
	if err != nil {
		return err
	}
	steps, ok, err := daemon.CheckShared(cmd.Context(), c)
	switch {
	case err != nil:
		return err
	case !ok:
		return &problem.Problem{
			Code: "shared-store-not-configured", Text: "no store is shared: cache.shared.url is not set in " + c.File,
			Hint: "see docs/shared-store.md",
		}
	}
	if f.asJSON {
		err = writeJSON(cmd.OutOrStdout(), sharedStepsJSON(steps))
	} else {
		err = writeSharedSteps(newPrinter(cmd.OutOrStdout()), steps)
	}
	if err != nil {
		return err
	}
	wrong := 0
	for _, s := range steps {
		if s.Problem != nil {
			wrong++
		}
	}
	if wrong > 0 {
		return errors.New(several(wrong, "problem") + " found")
	}
	return nil
}

// sharedStepJSON is a step of a check, for programs.
type sharedStepJSON struct {
	Step         string           `json:"step"`
	OK           bool             `json:"ok"`
	Text         string           `json:"text,omitempty"`
	Milliseconds float64          `json:"milliseconds"`
	Problem      *problem.Problem `json:"problem,omitempty"`
}

func sharedStepsJSON(steps []shared.Step) any {
	list := []sharedStepJSON{}
	for _, s := range steps {
		list = append(list, sharedStepJSON{s.Name, s.Problem == nil, s.Text, float64(s.Took.Microseconds()) / 1000, s.Problem})
	}
	return struct {
		Steps []sharedStepJSON `json:"steps"`
	}{list}
}

func writeSharedSteps(p *printer, steps []shared.Step) error {
	tw := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	for _, s := range steps {
		mark, text := "ok", s.Text
		if s.Problem != nil {
			mark, text = "problem", s.Problem.Error()
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", mark, s.Name, s.Took.Round(time.Millisecond/10), printable(text))
		if s.Problem != nil && s.Problem.Hint != "" {
			fmt.Fprintf(tw, "\t\t\thint: %s\n", printable(s.Problem.Hint))
		}
	}
	return tw.Flush()
}
