package daemon

import (
	"fmt"
	"net/netip"

	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// httpsPort is the port of the site's socket, as its unit has it.
const httpsPort = 443

// unopened returns a problem if the configuration describes a site, and neither systemd nor
// site.listen opens an address for it: mostly another program has the port. s.mu must be locked.
func (s *site) unopened() []*problem.Problem {
	described := s.settings.ACMEAcceptTerms || s.settings.Cert != "" || s.settings.TLS == "off"
	if !described || len(s.names) == 0 {
		return nil
	}
	p := &problem.Problem{
		Code: "site-not-served", Text: "the site is configured, and no socket is open for it",
		Hint: "sudo systemctl enable " + sdnotify.SiteUnit + " && sudo systemctl restart " + sdnotify.ProxyUnit + "; or set site.listen",
	}
	if by := listener.TakenBy(netip.AddrPortFrom(netip.IPv6Unspecified(), httpsPort)); by != "" {
		p.Text = fmt.Sprintf("the site is configured, and no socket is open for it: port %d is taken %s", httpsPort, by)
		p.Hint = "end that program, and: sudo systemctl restart " + sdnotify.ProxyUnit
	}
	return []*problem.Problem{p}
}

// withoutPlain returns a note if another program has the port at which systemd would open the site's
// socket of plain HTTP. s.mu must be locked.
func (s *site) withoutPlain() []*problem.Problem {
	if s.settings.TLS == "off" || s.redirects() {
		return nil
	}
	for _, l := range s.handedOver {
		at := addressOf(l)
		if at.Port() != httpsPort {
			continue
		}
		if by := listener.TakenBy(netip.AddrPortFrom(at.Addr(), httpPort)); by != "" {
			return []*problem.Problem{PlainHTTPTaken(by)}
		}
	}
	return nil
}

// PlainHTTPTaken returns a note that the site is served without port 80, which is taken by a process.
func PlainHTTPTaken(by string) *problem.Problem {
	return &problem.Problem{
		Code: "site-http-taken",
		Text: fmt.Sprintf("port %d is taken %s: the site is served by https alone, without a redirect from http, and certificates are proved at port %d (TLS-ALPN-01)", httpPort, by, httpsPort),
		Hint: "if sidemirror should have the port, end that program, and: sudo systemctl enable " + sdnotify.SiteHTTPUnit + " && sudo systemctl restart " + sdnotify.ProxyUnit,
	}
}
