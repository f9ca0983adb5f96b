package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/doctor"
	"github.com/sidemirror/sidemirror/daemon/proxycheck"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// examined is what "sidemirror doctor --json" prints. docs/json.md describes it.
type examined struct {
	OK     bool           `json:"ok"`
	Chains []doctor.Chain `json:"chains"`
}

func newDoctorCommand(g *globals) *cobra.Command {
	f := &hostFlags{globals: g}
	var asJSON bool
	var bundle string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what keeps pulls from going through sidemirror",
		Long: `Follow the chain from each container engine of this host to the registries, and show the first
link of each that is broken, with a hint. Each engine that runs is made to pull a small image that
sidemirror serves itself under the name of each registry, and the image is removed again: an engine
that can pull it does reach sidemirror.

Each problem has a code in brackets. docs/troubleshooting.md says what it means and what to do.

With --bundle, a compressed tar file for a bug report is written too: the result, the status, the
plan, the configuration and the last lines of the journal, without secrets. It names images that
were pulled: look into it before you pass it on.

Under --root no engine is asked to pull, and only files are looked at.

The exit code is 0 if no link is broken, and 1 if one is.`,
		Example: `  sudo sidemirror doctor
  sudo sidemirror doctor --json | jq '.chains[].links[].problems[]'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var file *os.File
			if bundle != "" {
				var err error
				if file, err = createBundle(bundle); err != nil {
					return err
				}
			}
			e, err := f.examination(cmd.Context())
			if err != nil {
				discard(file)
				return err
			}
			p := newPrinter(cmd.OutOrStdout())
			show := p.chain
			if asJSON {
				show = func(doctor.Chain) {}
			}
			found := examined{OK: true, Chains: e.Examine(cmd.Context(), show)}
			for _, c := range found.Chains {
				found.OK = found.OK && c.Sound()
			}
			if file != nil {
				if err := f.writeBundle(cmd.Context(), file, found); err != nil {
					return err
				}
			}
			if asJSON {
				err = writeJSON(cmd.OutOrStdout(), found)
			} else {
				err = p.verdict(found.OK, bundle)
			}
			if err == nil && !found.OK {
				return exitSilently(exitFailed)
			}
			return err
		},
	}
	f.addRoot(cmd)
	f.addEngines(cmd)
	addJSON(cmd, &asJSON)
	cmd.Flags().StringVar(&bundle, "bundle", "", "write a `file` for a bug report, which must not exist yet")
	return cmd
}

// examination looks at the host as status does.
func (f *hostFlags) examination(ctx context.Context) (*doctor.Examination, error) {
	h, err := f.host()
	if err != nil {
		return nil, err
	}
	now, err := f.inForce(ctx, config.DefaultLastGood(os.Environ()))
	if err != nil {
		return nil, err
	}
	want, err := f.desiredBy(now.Config)
	if err != nil {
		return nil, err
	}
	plan, err := hostconfig.Make(ctx, h, want)
	if err != nil {
		return nil, err
	}
	if !now.used {
		plan = onlyWhatIsThere(plan)
	}
	e := &doctor.Examination{File: now.File, Configuration: now.problems, Registries: want.Registries, Plan: plan}
	if h.Root == "/" {
		e.Reported = readState().Problems
		e.Unreported = unix.Access(state.File, unix.R_OK)
		report := proxycheck.Check(ctx, plan.Mirror, sdnotify.Units{}, now.problems...).Detailed(e.Reported)
		e.Reported = slices.DeleteFunc(e.Reported, func(p *problem.Problem) bool { return !slices.Contains(report.Problems, p) })
		e.Proxy = &report
		e.Try = func(ctx context.Context, engine, reference string) error {
			return hostconfig.Try(ctx, h, engine, reference)
		}
		e.Registry, e.Disk = askDaemon, describeDisk
	}
	return e, nil
}

// askDaemon examines a registry from inside the daemon.
func askDaemon(ctx context.Context, registry string) ([]doctor.Link, error) {
	found, err := adminClient().Diagnose(ctx, registry)
	if err != nil {
		return nil, err
	}
	var links []doctor.Link
	for _, d := range found {
		for _, step := range d.Steps {
			link := doctor.Link{Name: step.Name, State: doctor.Sound, Text: step.Text}
			if step.Problem != nil {
				link.State, link.Problems = doctor.Broken, []*problem.Problem{step.Problem}
			}
			if len(found) > 1 && link.Text != "" {
				link.Text = d.Upstream + ": " + link.Text
			}
			links = append(links, link)
		}
	}
	return links, nil
}

// describeDisk says how full the cache is, and the disk that it is on.
func describeDisk(ctx context.Context) (string, error) {
	s, err := adminClient().Status(ctx)
	switch {
	case err != nil:
		return "", err
	case s.Cache == nil:
		return "cache.dir is empty, so that nothing is stored", nil
	}
	text := "in " + s.Cache.Dir
	if s.Cache.Bytes != nil {
		text = bytesText(*s.Cache.Bytes) + " of at most " + bytesText(s.Cache.MaxSize) + " stored " + text
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(s.Cache.Dir, &disk); err == nil {
		text += ", " + bytesText(int64(disk.Bavail)*disk.Bsize) + " free on its disk"
	}
	return text, nil
}

// troubleshooting is the page about each code.
const troubleshooting = "https://github.com/sidemirror/sidemirror/blob/main/docs/troubleshooting.md"

// linkWidth is that of the longest name of a link.
const linkWidth = len("configuration")

// chain prints the links of a chain: "  ok       service        responds at http://127.0.0.1:305".
func (p *printer) chain(c doctor.Chain) {
	p.printf("%s\n", printable(c.Name))
	for _, link := range c.Links {
		color := map[doctor.State]string{doctor.Sound: green, doctor.Broken: red}[link.State]
		start := "  " + pad(string(link.State), len(doctor.Skipped)) + "  " + pad(link.Name, linkWidth) + "  "
		if link.Text != "" || len(link.Problems) == 0 {
			p.link(color, start, link.Text)
		}
		for _, what := range link.Problems {
			p.link(color, start, fmt.Sprintf("%v [%s]", what, what.Code))
			if what.Hint != "" {
				p.printf("%shint: %s\n", strings.Repeat(" ", len(start)), printable(what.Hint))
			}
		}
	}
}

// link prints one line of a link, wrapped between words on a terminal.
func (p *printer) link(color, start, text string) {
	line := start + printable(text)
	if p.width > 0 {
		line = hang(start, strings.Repeat(" ", len(start)), printable(text), p.width)
	}
	if p.color && color != "" {
		p.paint(color, line)
		return
	}
	p.printf("%s\n", strings.TrimRight(line, " "))
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-len(text)))
}

// verdict ends the output. bundle is the file that was written, or "".
func (p *printer) verdict(sound bool, bundle string) error {
	p.printf("\n")
	if sound {
		p.paint(green, "no broken link found")
	} else {
		p.paint(red, "broken links found: follow the hints above, the first one first")
		p.printf("what each code in brackets means: %s\n", troubleshooting)
	}
	if bundle != "" {
		p.printf("the bundle is in %s\n", printable(bundle))
	}
	return p.err
}
