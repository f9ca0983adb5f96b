package main

import (
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/hostconfig/buildx"
	"github.com/sidemirror/sidemirror/internal/bridge"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/sockdiag"
)

// dockersBridge is the bridge of Docker's default network.
const dockersBridge = "docker0"

func newSetupBuildxCommand(g *globals) *cobra.Command {
	var undo, asJSON bool
	var on string
	cmd := &cobra.Command{
		Use:   "setup-buildx",
		Short: "Make your new builders of docker buildx pull through sidemirror",
		Long: `Write sidemirror into the file from which docker buildx makes the configuration of new
builders, ~/.docker/buildx/buildkitd.default.toml, as the first mirror of each registry
that the configuration names. Builders run in containers, so they reach sidemirror at
the address of Docker's bridge: guests.networks in sidemirror's configuration must name
it. If sidemirror does not answer, a build pulls from the registry.

The file is that of the user who runs the command. Other settings in it stay as they
are. Builders that exist keep their configuration: create them again.

With --undo, sidemirror's entry is removed, and the file if nothing else is in it.`,
		Example: `  sidemirror setup-buildx
  docker buildx create --use
  sidemirror setup-buildx --undo`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := buildxSetup{globals: g, out: cmd.OutOrStdout(), json: asJSON, bridge: on}
			if undo {
				return s.undo()
			}
			return s.do()
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "remove sidemirror's entry")
	cmd.Flags().StringVar(&on, "bridge", dockersBridge, "the `name` of the bridge on which builders run")
	addJSON(cmd, &asJSON)
	return cmd
}

// buildxSetup is one run of setup-buildx.
type buildxSetup struct {
	globals *globals
	out     io.Writer
	json    bool
	bridge  string
}

// builderSetting is what "sidemirror setup-buildx --json" prints. docs/json.md describes it.
type builderSetting struct {
	File    string             `json:"file"`
	Changed bool               `json:"changed"`
	Mirror  string             `json:"mirror,omitempty"` // as the file has it; not with --undo
	Notes   []*problem.Problem `json:"notes"`
}

// file returns the name of the file of the user who runs the command.
func (s buildxSetup) file() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return buildx.File(home, os.Getenv), nil
}

func (s buildxSetup) do() error {
	c, err := config.Load(s.globals.configPath, os.Environ())
	if err != nil {
		return err
	}
	at, err := guestAddress(c, s.bridge)
	if err != nil {
		return err
	}
	done := builderSetting{Mirror: at.String(), Notes: silence(at)}
	if done.File, err = s.file(); err != nil {
		return err
	}
	if done.Changed, err = buildx.Set(done.File, done.Mirror, registryNames(c)); err != nil {
		return err
	}
	text := "is as it should be already"
	if done.Changed {
		text = "is written: new builders ask sidemirror at " + done.Mirror + " first"
	}
	return s.write(done, text, "builders that exist keep their configuration: docker buildx ls, docker buildx rm NAME, docker buildx create --use",
		"to undo it: sidemirror setup-buildx --undo")
}

// write prints what was done.
func (s buildxSetup) write(done builderSetting, text string, more ...string) error {
	if s.json {
		done.Notes = append([]*problem.Problem{}, done.Notes...)
		return writeJSON(s.out, done)
	}
	for _, line := range append([]string{done.File + " " + text}, more...) {
		if _, err := fmt.Fprintln(s.out, line); err != nil {
			return err
		}
	}
	return writeNotes(s.out, done.Notes)
}

// silence returns what to do if sidemirror does not listen at the address yet.
func silence(at netip.AddrPort) []*problem.Problem {
	if listens, err := sockdiag.Listens(at); err != nil || listens {
		return nil
	}
	return []*problem.Problem{{
		Code: "guests-not-listening", Text: fmt.Sprintf("no process listens at %v now, so guests pull from the registries", at),
		Hint: "sudo sidemirror apply; then see sudo sidemirror status",
	}}
}

func (s buildxSetup) undo() error {
	file, err := s.file()
	if err != nil {
		return err
	}
	var mirrors []string
	// Without a configuration, and without the bridge, the marks in the file say what is sidemirror's.
	if c, err := config.Load(s.globals.configPath, os.Environ()); err == nil {
		if at, err := guestAddress(c, s.bridge); err == nil {
			mirrors = append(mirrors, at.String())
		}
	}
	changed, err := buildx.Unset(file, mirrors)
	if err != nil {
		return err
	}
	text := "has no entry of sidemirror"
	if changed {
		text = "is without sidemirror again; builders that exist keep their configuration until you create them again"
	}
	return s.write(builderSetting{File: file, Changed: changed}, text)
}

// guestAddress returns where the guests of a bridge reach sidemirror as c configures it.
func guestAddress(c *config.Config, name string) (netip.AddrPort, error) {
	none := netip.AddrPort{}
	networks, _, err := bridge.List([]string{name})
	if err != nil {
		return none, err
	}
	if len(networks) == 0 {
		return none, &problem.Problem{
			Code: "no-such-bridge", Text: fmt.Sprintf("there is no bridge %s with an address on this host", name),
			Hint: "start the engine that makes it, or name another one with --bridge (see ip -brief address)",
		}
	}
	if !bridge.Named(c.Guests.Networks, name) {
		return none, &problem.Problem{
			Code: "guests-not-configured", Text: fmt.Sprintf("sidemirror does not serve the guests of %s: guests.networks does not name it", name),
			Hint: fmt.Sprintf("add it to %s: [guests] networks = [%q]; then run the command again", c.File, name),
		}
	}
	best := networks[0]
	for _, n := range networks {
		if n.Prefix.Addr().Is4() {
			best = n
			break
		}
	}
	return netip.AddrPortFrom(best.Prefix.Addr(), c.Guests.Port), nil
}
