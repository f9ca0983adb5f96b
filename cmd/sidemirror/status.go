package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/hostconfig"
)

// status is what "sidemirror status --json" prints.
type status struct {
	OK      bool               `json:"ok"`
	Proxy   *proxyStatus       `json:"proxy,omitempty"` // not under --root
	Engines []hostconfig.State `json:"engines"`
	Pending []string           `json:"pending"` // files that are not as planned
	Signals []string           `json:"signals"` // what engines have not been told yet
	Refused []string           `json:"refused"` // files that cannot be as planned, why, and the mend
}

type proxyStatus struct {
	Address string `json:"address"`
	Answers bool   `json:"answers"`
	Error   string `json:"error,omitempty"` // why not, and the mend
	Amiss   string `json:"amiss,omitempty"` // what it says itself is wrong, where systemd runs it
	Foreign bool   `json:"-"`               // somebody else answers there
}

func newStatusCommand(g *globals) *cobra.Command {
	f := &hostFlags{globals: g}
	var asJSON, short bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what is in force on this host, and what is amiss",
		Long: `Say which engines are on this host, in which version and with which store, which
of their files have our part and which should and have not, by what the engines
reach sidemirror, and whether it answers. Whatever is amiss comes with its mend.

The exit code is 0 where the host could be looked at, whatever was found; programs
read "ok" in what --json prints.`,
		Example: `  sudo sidemirror status
  sidemirror status --short
  sidemirror status --json | jq .ok`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON && short {
				return usageError{errors.New("--json and --short are two ways to say it; give one")}
			}
			h, plan, err := f.plan(cmd.Context())
			if err != nil {
				return err
			}
			s := newStatus(plan)
			if h.Root == "/" {
				s.Proxy = probe(cmd.Context(), plan.Mirror)
				s.Proxy.ask(cmd.Context(), sdnotify.Units{}.ProxyStatus)
			}
			s.judge()
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			if short {
				return s.writeShort(cmd.OutOrStdout(), undoing(h.Root))
			}
			return s.write(cmd.OutOrStdout(), plan.Changes)
		},
	}
	f.addRoot(cmd)
	f.addEngines(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, for programs")
	cmd.Flags().BoolVar(&short, "short", false, "print three lines at most: what is configured, what is amiss most, how to undo it")
	return cmd
}

func newStatus(plan hostconfig.Plan) *status {
	s := &status{Engines: plan.Engines, Pending: []string{}, Signals: append([]string{}, plan.Signals()...), Refused: []string{}}
	for _, c := range plan.Changes {
		s.Pending = append(s.Pending, c.Path)
	}
	for _, err := range plan.Refused {
		s.Refused = append(s.Refused, withHint(err))
	}
	return s
}

func (s *status) judge() {
	s.OK = len(s.Pending)+len(s.Signals)+len(s.Refused) == 0 && (s.Proxy == nil || s.Proxy.Answers && s.Proxy.Amiss == "")
	for _, e := range s.Engines {
		s.OK = s.OK && !inactive(e)
	}
}

// maxPage bounds what is read of whoever answers at our address.
const maxPage = 64 << 10

// probe asks for the page at /, which says whose it is and asks no registry.
func probe(ctx context.Context, address string) *proxyStatus {
	s := &proxyStatus{Address: address}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/", nil)
	if err != nil {
		s.Error = err.Error()
		return s
	}
	// Not the default transport: it would go by HTTP_PROXY.
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		s.Error = fmt.Sprintf("nobody answers (%v); engines go to the registries themselves; start it: sidemirror serve", err)
		return s
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil || !bytes.Contains(page, []byte("sidemirror")) {
		s.Foreign = true
		s.Error = "somebody else answers there, and the engines would ask that; see: ss -ltnp"
		return s
	}
	s.Answers = true
	return s
}

// ask takes over what a proxy that answers has told systemd is wrong. Whoever may not ask
// systemd, and a proxy that it does not run, has nothing to tell.
func (s *proxyStatus) ask(ctx context.Context, says func(context.Context) (string, error)) {
	if !s.Answers {
		return
	}
	if line, err := says(ctx); err == nil {
		_, s.Amiss, _ = strings.Cut(line, "; ")
	}
}

func (s *status) write(w io.Writer, changes []hostconfig.Change) error {
	p := &printer{w: w, color: colored(w)}
	if s.Proxy != nil {
		text := "answers at " + s.Proxy.Address
		if !s.Proxy.Answers {
			text = s.Proxy.Address + ": " + s.Proxy.Error
		}
		p.printf("%-10s  %s\n", "proxy", printable(text))
		if s.Proxy.Amiss != "" {
			p.paint(red, "            "+printable(s.Proxy.Amiss))
		}
	}
	pending := make(map[string]string)
	for _, c := range changes {
		pending[c.Path] = "to be changed"
		if c.Before == nil {
			pending[c.Path] = "missing"
		}
	}
	for _, e := range s.Engines {
		p.state(e)
		for _, name := range e.Files {
			wrong := pending[name]
			if s.refuses(name) {
				wrong = "cannot be changed, see below"
			}
			p.file(name, wrong)
			delete(pending, name)
		}
	}
	for _, c := range changes {
		if text := pending[c.Path]; text != "" {
			p.file(c.Path, "has our part, and should not any more")
		}
	}
	for _, text := range s.Refused {
		p.paint(red, "cannot: "+printable(text))
	}
	switch {
	case s.OK:
		p.paint(green, "all is as planned")
	case len(s.Pending)+len(s.Signals) > 0:
		p.paint(red, "not as planned; see what is to be done: sidemirror plan; do it: sidemirror apply")
	default:
		p.paint(red, "not all is well, see above")
	}
	return p.err
}

// refuses says whether a file is among those that cannot be as planned. What is said
// of each begins with its name.
func (s *status) refuses(name string) bool {
	return slices.ContainsFunc(s.Refused, func(text string) bool { return strings.HasPrefix(text, name+":") })
}

// file prints one file and what is wrong with it.
func (p *printer) file(name, wrong string) {
	if wrong == "" {
		p.printf("            %s\n", printable(name))
		return
	}
	p.paint(red, "            "+printable(name)+"  "+wrong)
}
