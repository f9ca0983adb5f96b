// Package proxycheck finds out whether sidemirror's proxy responds at the address that the
// engines use, and whether it is sidemirror that they would reach there.
package proxycheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/internal/portowner"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/sockdiag"
)

const (
	// patience is how long the proxy may take to respond.
	patience = 2 * time.Second

	// maxPage limits what is read of the response.
	maxPage = 64 << 10
)

// Report is what Check found out.
type Report struct {
	// Address is the URL that the engines use.
	Address string

	// Answers reports whether sidemirror serves there. It is false if another user's process
	// listens, whatever that responds.
	Answers bool

	// Units are sidemirror's units; none if systemd does not run it here.
	Units []Unit

	// Problems are what is wrong with it, each with a hint.
	Problems []*problem.Problem
}

// Check examines the proxy at address, a URL, and sidemirror's units. The report begins with the
// problems that are known already, and leaves out what follows from them.
func Check(ctx context.Context, address string, systemd Systemd, known ...*problem.Problem) Report {
	c := checker{
		listenerOf: sockdiag.Listener,
		checkPort:  listener.CheckPort,
		trusted:    portowner.IsTrusted,
	}
	return c.check(ctx, address, systemd, known...)
}

type checker struct {
	listenerOf func(netip.AddrPort) (uid uint32, found bool, err error)
	checkPort  func(netip.AddrPort) *problem.Problem
	trusted    func(uid uint32) bool
}

func (c checker) check(ctx context.Context, address string, systemd Systemd, known ...*problem.Problem) Report {
	r := Report{Address: address, Problems: slices.Clip(known)}
	at, err := hostPort(address)
	if err != nil {
		return r.with(&problem.Problem{Code: "proxy-address-invalid", Path: address, Text: "not the address of a proxy", Err: err})
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var wrong map[string]*problem.Problem
	r.Units, wrong = examineUnits(ctx, systemd)
	if p := c.owner(at); p != nil {
		r = r.with(p) // and ask it nothing
	} else {
		r = r.ask(ctx, wrong, len(known) > 0)
		if p := c.checkPort(at); p != nil {
			r = r.with(p)
		}
	}
	for _, u := range units {
		if p := wrong[u.name]; p != nil {
			r = r.with(p)
		}
	}
	if line, err := systemd.ProxyStatus(ctx); err == nil {
		r = r.reported(line)
	}
	return r
}

// ask finds out whether the proxy responds. wrong is what is wrong with the units; what explains that
// it does not respond is removed. explained says that what is known already explains a refusal.
func (r Report) ask(ctx context.Context, wrong map[string]*problem.Problem, explained bool) Report {
	p := respond(ctx, r.Address)
	switch {
	case p == nil:
		r.Answers = true
		return r
	case p.Code == "proxy-refuses" && explained:
		return r
	case p.Code == "proxy-down" && len(r.Units) > 0:
		p.Hint = "systemctl status " + sdnotify.SocketUnit + " " + sdnotify.ProxyUnit
		for _, name := range []string{sdnotify.SocketUnit, sdnotify.ProxyUnit} {
			if cause := wrong[name]; cause != nil && cause.Code != "unit-disabled" {
				text, _, _ := strings.Cut(cause.Text, ":")
				p.Err, p.Hint = errors.New(text), cause.Hint
				delete(wrong, name)
				break
			}
		}
	}
	return r.with(p)
}

// reported adds what the proxy's status line reports and is not known yet.
func (r Report) reported(line string) Report {
	_, more, _ := strings.Cut(line, "; ")
	for _, p := range r.Problems {
		more = without(more, p)
	}
	if more == "" {
		return r
	}
	return r.with(&problem.Problem{Code: reportedCode, Text: more, Hint: "journalctl -u sidemirror"})
}

// Detailed returns r with problems that the proxy has reported in another way, with their codes and
// hints, in place of the same ones of its status line. It leaves out what r has already: the caller
// may have found out itself that the configuration on disk is not in force.
func (r Report) Detailed(problems []*problem.Problem) Report {
	whole := r.Problems
	r.Problems = nil
	for _, p := range whole {
		if p.Code == reportedCode {
			line := p.Text
			for _, known := range problems {
				line = without(line, known)
			}
			if line == "" {
				continue
			}
			rest := *p
			rest.Text = line
			p = &rest
		}
		r = r.with(p)
	}
	for _, p := range problems {
		known := func(other *problem.Problem) bool {
			return other.Code == p.Code || other.Code == "configuration-not-in-force" && p.Code == "no-configuration"
		}
		if !slices.ContainsFunc(whole, known) { // Check has found it out too
			r.Problems = append(r.Problems, p)
		}
	}
	return r
}

// reportedCode is the code of the problem that has the proxy's status line.
const reportedCode = "proxy-reports-problem"

// without removes p from the problems of a status line.
func without(reported string, p *problem.Problem) string {
	for _, text := range []string{p.Error() + " (" + p.Hint + ")", p.Error(), p.Text + " (" + p.Hint + ")", p.Text} {
		if before, after, found := strings.Cut(reported, text); found {
			return strings.Trim(strings.TrimSuffix(before, "; ")+after, "; ")
		}
	}
	return reported
}

func (r Report) with(p *problem.Problem) Report {
	r.Problems = append(r.Problems, p)
	return r
}

// owner returns a problem if another user's process listens at addr. The engines trust the
// process that responds there: they would send it their requests and credentials.
func (c checker) owner(addr netip.AddrPort) *problem.Problem {
	uid, found, err := c.listenerOf(addr)
	if err != nil || !found || c.trusted(uid) {
		return nil // a request tells more
	}
	return &problem.Problem{
		Code: "proxy-port-taken",
		Text: fmt.Sprintf("a process of user %s listens at %v, and engines would trust it", portowner.Name(uid), addr),
		Hint: fmt.Sprintf("find and end it: ss -ltnp sport = %d", addr.Port()),
	}
}

// respond asks for the page at /, which names sidemirror and needs no registry.
func respond(ctx context.Context, address string) *problem.Problem {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/", nil)
	if err != nil {
		return &problem.Problem{Code: "proxy-address-invalid", Path: address, Text: "not the address of a proxy", Err: err}
	}
	// The default transport would use a proxy of the environment's.
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return &problem.Problem{
			Code: "proxy-down",
			Text: "sidemirror does not respond at " + address + ", so engines use the registries directly",
			Hint: "sidemirror serve",
			Err:  err,
		}
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	switch {
	case err != nil || !bytes.Contains(page, []byte("sidemirror")):
		return &problem.Problem{
			Code: "proxy-foreign",
			Text: "another program responds at " + address + ", and engines would trust it",
			Hint: "find it: ss -ltnp",
		}
	case resp.StatusCode == http.StatusServiceUnavailable:
		return &problem.Problem{
			Code: "proxy-refuses",
			Text: "sidemirror refuses every request, because it has no configuration that can be used",
			Hint: "sidemirror config check",
		}
	}
	return nil
}

// hostPort returns where address is.
func hostPort(address string) (netip.AddrPort, error) {
	u, err := url.Parse(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(u.Host)
}
