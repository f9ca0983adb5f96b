// Package proxycheck finds out whether sidemirror's proxy responds at the address that the
// engines use, and whether it is sidemirror that they would reach there.
package proxycheck

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/daemon/listener"
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

	// Problems are what is wrong with it, each with a hint.
	Problems []*problem.Problem
}

// Check examines the proxy at address, a URL. statusLine returns the proxy's own status line,
// which has its problems after semicolons; it may fail. The report begins with the problems that
// are known already, and leaves them out of what the proxy reports.
func Check(ctx context.Context, address string, statusLine func(context.Context) (string, error), known ...*problem.Problem) Report {
	c := checker{
		listenerOf: sockdiag.Listener,
		checkPort:  listener.CheckPort,
		trusted:    portowner.IsTrusted,
	}
	return c.check(ctx, address, statusLine, known...)
}

type checker struct {
	listenerOf func(netip.AddrPort) (uid uint32, found bool, err error)
	checkPort  func(netip.AddrPort) *problem.Problem
	trusted    func(uid uint32) bool
}

func (c checker) check(ctx context.Context, address string, statusLine func(context.Context) (string, error), known ...*problem.Problem) Report {
	r := Report{Address: address, Problems: slices.Clip(known)}
	at, err := hostPort(address)
	if err != nil {
		return r.with(&problem.Problem{Code: "proxy-address-invalid", Path: address, Text: "not the address of a proxy", Err: err})
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if p := c.owner(at); p != nil {
		return r.with(p) // and ask it nothing
	}
	if p := respond(ctx, address); p != nil {
		r = r.with(p)
	} else {
		r.Answers = true
	}
	if p := c.checkPort(at); p != nil {
		r = r.with(p)
	}
	line, err := statusLine(ctx)
	if err != nil {
		return r
	}
	_, reported, _ := strings.Cut(line, "; ")
	for _, p := range r.Problems {
		reported = without(reported, p)
	}
	if reported != "" {
		r = r.with(&problem.Problem{Code: "proxy-reports-problem", Text: reported, Hint: "journalctl -u sidemirror"})
	}
	return r
}

// without removes p from the problems of a status line.
func without(reported string, p *problem.Problem) string {
	for _, text := range []string{p.Text + " (" + p.Hint + ")", p.Text} {
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
			Hint: "systemctl status sidemirror; by hand: sidemirror serve",
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
