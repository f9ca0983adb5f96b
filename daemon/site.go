package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/certificate"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/listener"
	"github.com/sidemirror/sidemirror/daemon/logging"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/access"
)

// site serves the mirror on a domain of its own, with a server and connections that have nothing to do
// with those of this host's engines. A fault of its ends nothing and keeps no configuration out of
// force. Without a configured site or sockets for it, it has no goroutine.
type site struct {
	d            *daemon
	handedOver   []*net.TCPListener // opened by systemd
	certificates *certificate.Provider
	limiter      *listener.Limiter
	running      sync.WaitGroup // of the servers and the renewal

	mu       sync.Mutex
	settings config.Site
	names    []string
	forward  func(*http.Request) (*url.URL, error) // through which the ACME server is asked; nil: none
	secure   *http.Server
	plain    *http.Server // redirects
	faults   io.Closer    // of the servers
	open     map[netip.AddrPort]siteSocket
	wrong    []*problem.Problem // addresses
	stop     context.CancelFunc // ends the renewal; nil: there is none
	closed   bool
}

// siteSocket is a listener of the site, and how it is served.
type siteSocket struct {
	*net.TCPListener
	siteUse
}

// siteUse is how an address is served.
type siteUse struct{ redirects, tls bool }

// newSite returns a site that serves nothing yet.
func (d *daemon) newSite() *site {
	s := &site{d: d, certificates: certificate.New(), open: map[netip.AddrPort]siteSocket{}}
	s.certificates.Log = func(name, text string, err error) {
		log := d.log.WithField("name", name)
		if err != nil {
			log.WithError(err).Warn("site: " + text)
			return
		}
		log.Info("site: " + text)
	}
	return s
}

// stateFolder returns the folder for what is stored across restarts.
func stateFolder() string {
	if list := os.Getenv("STATE_DIRECTORY"); list != "" {
		first, _, _ := strings.Cut(list, ":")
		return first
	}
	return "/var/lib/sidemirror"
}

// set puts the site of c in force.
func (s *site) set(c *config.Config, found handover.Handover) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.settings, s.names = c.Site, c.SiteNames()
	s.forward = chooseOutbound(c, environmentProxy(), found.Proxy).forRequest
	if s.configured() {
		s.start()
	}
	if s.secure != nil {
		s.certify()
		s.follow()
	}
}

// configured reports whether there is an address to serve. s.mu must be locked.
func (s *site) configured() bool { return len(s.handedOver)+len(s.settings.Listen) > 0 }

// start makes the servers, once. s.mu must be locked.
func (s *site) start() {
	if s.secure != nil {
		return
	}
	s.limiter = listener.NewSiteLimiter(s.d.visitors.Share)
	s.secure, s.plain = listener.NewSiteServer(&s.d.handler), listener.NewServer(http.HandlerFunc(s.redirect))
	// Anyone can cause what they report, such as a handshake that fails.
	faults, closer := logging.ForServer(s.d.log, logrus.DebugLevel)
	s.faults = closer
	for _, server := range []*http.Server{s.secure, s.plain} {
		server.ErrorLog = faults
		server.BaseContext = func(net.Listener) context.Context { return access.WithSite(s.d.work) }
	}
	s.secure.TLSConfig = s.certificates.TLSConfig()
}

// certify puts the settings of the certificates in force. s.mu must be locked.
func (s *site) certify() {
	if s.settings.TLS == "off" || !s.configured() {
		s.stopRenewal()
		return
	}
	s.certificates.Update(certificate.Settings{
		Names: s.names, Cert: s.settings.Cert, Key: s.settings.Key,
		Folder: filepath.Join(stateFolder(), "site"),
		ACME: certificate.Server{
			Directory: s.settings.ACMEDirectory, CA: s.settings.ACMECA, Email: s.settings.ACMEEmail,
			AcceptTerms: s.settings.ACMEAcceptTerms, HTTP01: s.redirects(), Proxy: s.forward,
		},
	})
	switch acme := s.settings.TLS == "acme"; {
	case !acme:
		s.stopRenewal()
	case s.stop == nil:
		ctx, cancel := context.WithCancel(s.d.work)
		s.stop = cancel
		s.running.Go(func() { s.certificates.Run(ctx) })
	}
}

// stopRenewal ends the renewal of certificates. s.mu must be locked.
func (s *site) stopRenewal() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// httpPort is the port of plain HTTP: a socket of systemd's at it redirects.
const httpPort = 80

// redirects reports whether an address redirects to https. s.mu must be locked.
func (s *site) redirects() bool {
	return len(s.settings.HTTPListen) > 0 || slices.ContainsFunc(s.handedOver, func(l *net.TCPListener) bool { return s.isPlain(addressOf(l)) })
}

// isPlain reports whether a socket of systemd's redirects to https. s.mu must be locked.
func (s *site) isPlain(at netip.AddrPort) bool {
	return s.settings.TLS != "off" && (at.Port() == httpPort || slices.Contains(s.settings.HTTPListen, at))
}

func addressOf(l *net.TCPListener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// uses returns how each address is served as the settings are now. s.mu must be locked.
func (s *site) uses() map[netip.AddrPort]siteUse {
	uses := map[netip.AddrPort]siteUse{}
	encrypted := s.settings.TLS != "off"
	for _, l := range s.handedOver {
		plain := s.isPlain(addressOf(l))
		uses[addressOf(l)] = siteUse{redirects: plain, tls: encrypted && !plain}
	}
	if len(s.handedOver) > 0 || len(s.settings.Listen) == 0 {
		return uses
	}
	for _, at := range s.settings.Listen {
		uses[at] = siteUse{tls: encrypted}
	}
	for _, at := range s.settings.HTTPListen {
		uses[at] = siteUse{redirects: true}
	}
	return uses
}

// follow opens and closes addresses as the settings are now. s.mu must be locked.
func (s *site) follow() {
	uses := s.uses()
	for at, l := range s.open {
		if use, wanted := uses[at]; !wanted || use != l.siteUse {
			delete(s.open, at)
			_ = l.Close()
			s.d.log.WithField("address", at.String()).Info("the site is not served there any more")
		}
	}
	s.wrong = nil
	for at, use := range uses {
		if s.open[at].TCPListener != nil {
			continue
		}
		l, err := s.listen(at)
		if err != nil {
			s.wrong = append(s.wrong, siteProblem(at, err))
			continue
		}
		s.open[at] = siteSocket{l, use}
		s.d.log.WithField("address", at.String()).Info("serving the site")
		s.accept(s.open[at])
	}
	slices.SortFunc(s.wrong, func(a, b *problem.Problem) int { return strings.Compare(a.Error(), b.Error()) })
}

// listen opens an address. Of a socket of systemd's it returns a copy, which can be closed.
func (s *site) listen(at netip.AddrPort) (*net.TCPListener, error) {
	for _, l := range s.handedOver {
		if addressOf(l) != at {
			continue
		}
		f, err := l.File()
		if err != nil {
			return nil, err
		}
		defer f.Close()
		copied, err := net.FileListener(f)
		if err != nil {
			return nil, err
		}
		return copied.(*net.TCPListener), nil
	}
	return listener.Open(s.d.work, at)
}

func siteProblem(at netip.AddrPort, err error) *problem.Problem {
	p := &problem.Problem{
		Code: "site-not-served", Text: fmt.Sprintf("the site is not served at %v", at), Err: err,
		Hint: "change site.listen, or end the process that has the address",
	}
	if errors.Is(err, fs.ErrPermission) {
		p.Hint = "sudo sidemirror site enable, with which systemd opens the address"
	}
	return p
}

// accept serves the connections of a socket. s.mu must be locked.
func (s *site) accept(l siteSocket) {
	server, limited := s.secure, listener.LimitSite(l.TCPListener, s.limiter, l.tls)
	if l.redirects {
		server = s.plain
	}
	s.running.Go(func() {
		var err error
		if l.tls {
			err = server.ServeTLS(limited, "", "")
		} else {
			err = server.Serve(limited)
		}
		if !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
			s.d.log.WithError(err).WithField("address", l.Addr().String()).Error("the site is not served there any more")
		}
	})
}

// redirect responds to plain HTTP: to the challenges of an ACME server, and with the https URL to
// requests for a name of the site.
func (s *site) redirect(w http.ResponseWriter, r *http.Request) {
	if s.certificates.Challenge(w, r) {
		return
	}
	host := strings.ToLower(r.Host)
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	s.mu.Lock()
	known, port := slices.Contains(s.names, host), s.httpsPort()
	s.mu.Unlock()
	if !known || r.URL.Host != "" || !strings.HasPrefix(r.URL.Path, "/") {
		http.Error(w, "no registry is served under this name", http.StatusNotFound)
		return
	}
	if port != "443" {
		host = net.JoinHostPort(host, port)
	}
	w.Header().Set("Location", "https://"+host+r.URL.RequestURI())
	w.WriteHeader(http.StatusPermanentRedirect)
}

// httpsPort returns the port of the first address with TLS. s.mu must be locked.
func (s *site) httpsPort() string {
	for _, l := range s.handedOver {
		if at := addressOf(l); !s.isPlain(at) {
			return fmt.Sprint(at.Port())
		}
	}
	if len(s.settings.Listen) > 0 {
		return fmt.Sprint(s.settings.Listen[0].Port())
	}
	return "443"
}

// problems returns what is wrong with the site. It tries addresses again that could not be opened.
func (s *site) problems() []*problem.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if !s.configured() {
		return s.unopened()
	}
	if len(s.wrong) > 0 {
		s.follow()
	}
	list := append(slices.Clone(s.wrong), s.withoutPlain()...)
	if len(s.names) == 0 {
		list = append(list, &problem.Problem{
			Code: "site-without-name", Text: "the site has no name, and refuses every request",
			Hint: "add hosts = [\"docker.example.com\"], with your own domain, to [registry.\"docker.io\"]",
		})
	}
	if s.settings.TLS != "off" {
		list = append(list, s.certificates.Problems()...)
	}
	return list
}

// report returns what is served; nil if no site is configured.
func (s *site) report() *state.Site {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.configured() {
		return nil
	}
	r := &state.Site{Names: s.names, Addresses: []string{}, TLS: s.settings.TLS, Certificates: []state.Certificate{}}
	for at := range s.open {
		r.Addresses = append(r.Addresses, at.String())
	}
	slices.Sort(r.Addresses)
	if s.settings.TLS != "off" {
		for _, c := range s.certificates.Certificates() {
			r.Certificates = append(r.Certificates, state.Certificate(c))
		}
	}
	return r
}

// close closes the listeners.
func (s *site) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.stopRenewal()
	for _, l := range s.handedOver {
		_ = l.Close() // no data can be lost with a listener
	}
	for _, l := range s.open {
		_ = l.Close()
	}
	clear(s.open)
}

// drain waits for the requests under way until ctx is done, and closes the connections.
func (s *site) drain(ctx context.Context) {
	if s.secure == nil {
		return
	}
	for _, server := range []*http.Server{s.plain, s.secure} {
		if server.Shutdown(ctx) != nil {
			_ = server.Close() // its errors are those of broken connections
		}
	}
	s.running.Wait()
	_ = s.faults.Close()
}
