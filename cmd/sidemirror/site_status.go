package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/health"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/internal/problem"
)

func newSiteDisableCommand(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "disable",
		Short: "Serve this host alone",
		Long: `Remove the lines that "site enable" wrote into the configuration, and let systemd close
the ports. If nothing else has changed, the file is as it was before, to the byte. The
certificates stay in /var/lib/sidemirror/site.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := siteEdit{source: config.Source{Path: g.configPath, Environ: os.Environ()}, out: cmd.OutOrStdout(), json: asJSON, systemd: servedBySystemd}
			return s.disable(cmd.Context())
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

func newSiteStatusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the names, addresses, certificates and problems of the site",
		Long: `Show what the running daemon serves to other hosts: its names and addresses, the
certificate of each name with its end, and what is wrong. The exit code is 1 if there are
problems, or if no site is served.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := adminClient().Status(cmd.Context())
			switch {
			case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
				return &problem.Problem{Code: "not-root", Text: "asking the daemon", Err: err, Hint: "run as root"}
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
				return &problem.Problem{Code: "proxy-not-running", Text: "the daemon does not run", Err: err, Hint: "systemctl start sidemirror"}
			case err != nil:
				return err
			}
			report := siteReport{Site: status.Site, Problems: []health.Problem{}}
			for _, p := range status.Problems {
				if strings.HasPrefix(string(p.Code), "site-") {
					report.Problems = append(report.Problems, p)
				}
			}
			if asJSON {
				err = writeJSON(cmd.OutOrStdout(), report)
			} else {
				err = report.write(cmd.OutOrStdout(), time.Now())
			}
			return errors.Join(err, report.failure())
		},
	}
	addJSON(cmd, &asJSON)
	return cmd
}

// siteReport is what "sidemirror site status --json" prints. docs/json.md describes it.
type siteReport struct {
	Site     *state.Site      `json:"site"` // null: no site is served
	Problems []health.Problem `json:"problems"`
}

// failure returns the error of a command whose exit code is 1, if there is something wrong.
func (r siteReport) failure() error {
	switch {
	case r.Site == nil && len(r.Problems) == 0:
		return &problem.Problem{Code: "site-off", Text: "no site is served", Hint: "sudo sidemirror site enable NAME --accept-terms"}
	case slices.ContainsFunc(r.Problems, func(p health.Problem) bool { return p.Severity > health.Note }):
		return exitSilently(exitFailed)
	}
	return nil
}

func (r siteReport) write(w io.Writer, now time.Time) error {
	p := newPrinter(w)
	if r.Site != nil {
		r.writeSite(p, now)
	}
	for i, found := range r.Problems {
		if r.Site != nil || i > 0 {
			p.printf("\n")
		}
		if found.Severity == health.Note {
			p.printf("note: %s\n", printable(found.Error()))
		} else {
			p.paint(red, printable(found.Error()))
		}
		p.printf("hint: %s\n", printable(found.Hint))
	}
	return p.err
}

func (r siteReport) writeSite(p *printer, now time.Time) {
	p.printf("%-12s  %s\n", "names", printable(strings.Join(r.Site.Names, ", ")))
	p.printf("%-12s  %s\n", "addresses", strings.Join(r.Site.Addresses, ", "))
	if r.Site.TLS == "off" {
		p.printf("%-12s  a reverse proxy has it\n", "certificate")
	}
	for _, c := range r.Site.Certificates {
		switch {
		case c.NotAfter.IsZero():
			p.printf("%-12s  %s: none\n", "certificate", printable(c.Name))
		default:
			left := "expired"
			if c.NotAfter.After(now) {
				left = several(int(c.NotAfter.Sub(now)/(24*time.Hour)), "day")
			}
			p.printf("%-12s  %s: until %s (%s), from %s\n", "certificate", printable(c.Name),
				c.NotAfter.UTC().Format(time.RFC3339), left, printable(c.Issuer))
		}
	}
}
