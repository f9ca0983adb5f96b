// Package certificate provides the TLS certificates of a site: from files, or from an ACME server, of
// which it obtains and renews one for each name. A certificate that cannot be replaced stays in use.
package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// Settings say where the certificates come from.
type Settings struct {
	// Names are the host names of the site, in lower case.
	Names []string

	// Cert and Key are the files of a certificate and its key. If they are "", ACME is used.
	Cert, Key string

	// Folder is where what an ACME server has issued is stored, with the key of the account.
	Folder string

	// ACME is the server that issues certificates.
	ACME Server
}

// Server is an ACME server, and how to use it.
type Server struct {
	// Directory is the URL of its directory.
	Directory string

	// CA is a file of certificates that are trusted for it in addition to the system's; "" for none.
	CA string

	// Email is where the server can reach the administrator; "" for none.
	Email string

	// AcceptTerms says that the administrator agrees to its terms. Without that it is not asked.
	AcceptTerms bool

	// Proxy returns the forward proxy through which a request to it is sent, as the Proxy of a transport
	// does. If it is nil, there is none.
	Proxy func(*http.Request) (*url.URL, error)

	// HTTP01 says that [Provider.Challenge] sees the requests that arrive at port 80 of the names.
	HTTP01 bool
}

// Certificate is what is known of the certificate of a name.
type Certificate struct {
	Name     string
	Issuer   string
	NotAfter time.Time // zero: there is none
	Problem  string    // "": there is none
}

// Provider provides the certificates of a site. All of its methods may be called at any time.
type Provider struct {
	// Log, if not nil, is called with what happens to the certificate of a name; err, if not nil, is why
	// it failed. It must be set before Update.
	Log func(name, text string, err error)

	now  func() time.Time
	wake chan struct{}

	mu         sync.Mutex
	settings   Settings
	names      map[string]*entry
	tokens     map[string]*tls.Certificate // of TLS-ALPN-01, by name
	responses  map[string]string           // of HTTP-01, by path
	unreadable *problem.Problem            // the files, or the folder
}

// entry is the certificate of a name, and the attempts to get the next one.
type entry struct {
	cert     *tls.Certificate // nil: none
	failures int              // since the last success
	retry    time.Time        // when the next attempt may be made after a failure
	err      error            // of the last attempt
}

// New returns a Provider that has no certificates until its first Update.
func New() *Provider {
	return &Provider{
		now: time.Now, wake: make(chan struct{}, 1), names: map[string]*entry{},
		tokens: map[string]*tls.Certificate{}, responses: map[string]string{},
	}
}

// Update puts settings in force. Certificates that are in use stay in use if it finds no others.
// Attempts that failed are made again at once.
func (p *Provider) Update(s Settings) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.names
	sameSource := p.settings.Cert == "" && s.Cert == "" && p.settings.ACME.Directory == s.ACME.Directory
	p.settings, p.unreadable = s, nil
	p.names = map[string]*entry{}
	for _, name := range s.Names {
		e := old[name]
		if e == nil {
			e = &entry{}
		}
		e.failures, e.retry = 0, time.Time{}
		if !sameSource {
			e.err = nil
		}
		p.names[name] = e
	}
	if s.Cert != "" {
		p.loadFiles()
	} else {
		p.loadStored(sameSource)
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// TLSConfig returns the configuration of a server with the certificates: TLS 1.2 or newer.
func (p *Provider) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1", acme.ALPNProto},
		GetCertificate: p.get,
	}
}

// get returns the certificate for a handshake, or the one that an ACME server looks for.
func (p *Provider) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto}) {
		if cert := p.tokens[name]; cert != nil {
			return cert, nil
		}
		return nil, fmt.Errorf("there is no challenge for %q", name)
	}
	if e := p.names[name]; e != nil && e.cert != nil {
		return e.cert, nil
	}
	if p.settings.Cert == "" {
		return nil, fmt.Errorf("there is no certificate for %q", name)
	}
	// A client that asks for another name sees for which ones the certificate is.
	for _, e := range p.names {
		if e.cert != nil {
			return e.cert, nil
		}
	}
	return nil, errors.New("there is no certificate")
}

// Certificates returns what is known of the certificate of each name, sorted by name.
func (p *Provider) Certificates() []Certificate {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]Certificate, 0, len(p.names))
	for name, e := range p.names {
		c := Certificate{Name: name}
		if e.cert != nil {
			c.Issuer, c.NotAfter = e.cert.Leaf.Issuer.String(), e.cert.Leaf.NotAfter
		}
		if pr := p.problemOf(name, e); pr != nil {
			c.Problem = pr.Error()
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b Certificate) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Problems returns what is wrong with the certificates now.
func (p *Provider) Problems() []*problem.Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*problem.Problem
	if p.unreadable != nil {
		list = append(list, p.unreadable)
	}
	for name, e := range p.names {
		if pr := p.problemOf(name, e); pr != nil {
			list = append(list, pr)
		}
	}
	slices.SortFunc(list, func(a, b *problem.Problem) int { return strings.Compare(a.Error(), b.Error()) })
	return list
}

// problemOf returns what is wrong with the certificate of a name; nil if nothing is. p.mu must be
// locked.
func (p *Provider) problemOf(name string, e *entry) *problem.Problem {
	now := p.now()
	if e.cert != nil {
		if wrong := notValid(e.cert.Leaf, name, now, why(e.err), p.renewHint(e.err)); wrong != nil {
			return wrong
		}
		if p.settings.Cert != "" {
			if wrong := notFor(e.cert.Leaf, p.settings.Cert, name); wrong != nil {
				return wrong
			}
		}
	}
	switch {
	case e.cert == nil && p.settings.Cert != "":
		return nil // unreadable says it
	case e.cert == nil && !p.settings.ACME.AcceptTerms:
		return &problem.Problem{
			Code: "site-terms", Text: "there is no certificate for " + name + ", because you have not agreed to the terms of the ACME server",
			Hint: "sidemirror site enable --accept-terms; or set acme_accept_terms in [site]",
		}
	case e.cert == nil && e.err == nil:
		return &problem.Problem{Code: "site-certificate-missing", Text: "there is no certificate for " + name + " yet", Hint: "wait a minute"}
	case e.cert == nil:
		return &problem.Problem{Code: "site-certificate-missing", Text: "there is no certificate for " + name + ": " + e.err.Error(), Hint: hintOf(e.err)}
	case e.err != nil, p.settings.Cert != "" && now.After(renewAt(e.cert.Leaf)) && e.cert.Leaf.NotAfter.Sub(now) < soon:
		return &problem.Problem{
			Code: "site-certificate-old", Text: fmt.Sprintf("the certificate of %s was not renewed, and expires %s%s", name, e.cert.Leaf.NotAfter.UTC().Format(time.RFC3339), why(e.err)),
			Hint: p.renewHint(e.err),
		}
	}
	return nil
}

// soon is how long before its end a certificate in a file is reported.
const soon = 7 * 24 * time.Hour

func why(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// renewHint returns what to do about a certificate that is too old. p.mu must be locked.
func (p *Provider) renewHint(err error) string {
	if p.settings.Cert != "" {
		return renewFile(p.settings.Cert)
	}
	return hintOf(err)
}

// hintOf returns what to do about an attempt that failed.
func hintOf(err error) string {
	invalid, expired := errors.AsType[x509.CertificateInvalidError](err)
	_, failed := errors.AsType[*acme.AuthorizationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	switch {
	case expired && invalid.Reason == x509.Expired:
		return "check this host's clock: timedatectl"
	case unknown:
		return "set acme_ca in [site] to a file with the certificate of the ACME server's authority"
	case failed:
		return "the name must lead to this host, with port 443 or 80 reachable for the ACME server; \"systemctl reload sidemirror\" tries again at once"
	case err == nil:
		return "systemctl reload sidemirror"
	}
	return "sidemirror tries again; \"systemctl reload sidemirror\" makes it try at once"
}

// renewAt returns when a certificate should be replaced: when a third of its time is left, or thirty
// days.
func renewAt(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-min(leaf.NotAfter.Sub(leaf.NotBefore)/3, 30*24*time.Hour))
}

// Run obtains and renews the certificates of an ACME server until ctx is done.
func (p *Provider) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
		timer.Reset(p.renew(ctx))
	}
}

// lookEvery is how often certificates are looked at, at least: the clock may be set.
const lookEvery = time.Minute

// renew replaces the certificates that are due, and returns when to look again.
func (p *Provider) renew(ctx context.Context) time.Duration {
	next := lookEvery
	for _, name := range p.due() {
		if ctx.Err() != nil {
			break
		}
		p.replace(ctx, name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.names {
		if at := e.dueAt(); p.settings.Cert == "" && !at.IsZero() {
			next = min(next, max(at.Sub(p.now()), time.Second))
		}
	}
	return next
}

// due returns the names whose certificate should be replaced now, sorted.
func (p *Provider) due() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	if p.settings.Cert != "" || !p.settings.ACME.AcceptTerms || p.unreadable != nil {
		return nil
	}
	for name, e := range p.names {
		if !p.now().Before(e.dueAt()) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// dueAt returns when the certificate of e should be replaced.
func (e *entry) dueAt() time.Time {
	if e.failures > 0 || e.cert == nil {
		return e.retry
	}
	return renewAt(e.cert.Leaf)
}

// The time between attempts that fail. Let's Encrypt allows five of them in an hour for a name.
const (
	firstRetry = time.Minute
	lastRetry  = time.Hour
)

// replace asks for a new certificate for a name.
func (p *Provider) replace(ctx context.Context, name string) {
	p.mu.Lock()
	s := p.settings
	p.mu.Unlock()
	cert, err := p.issue(ctx, s, name)
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.names[name]
	if e == nil || p.settings.Cert != "" || p.settings.ACME.Directory != s.ACME.Directory {
		return // other settings came into force
	}
	e.err = err
	if err == nil {
		e.cert, e.failures = cert, 0
		p.log(name, "a certificate was issued, until "+cert.Leaf.NotAfter.UTC().Format(time.RFC3339), nil)
		return
	}
	wait := min(firstRetry<<min(2*e.failures, 16), lastRetry)
	if e.cert != nil { // one that is short-lived is retried sooner, so that it does not run out
		wait = min(wait, max(e.cert.Leaf.NotAfter.Sub(e.cert.Leaf.NotBefore)/20, time.Second))
	}
	e.failures++
	p.log(name, "no certificate was issued", err)
	e.retry = p.now().Add(wait)
}

func (p *Provider) log(name, text string, err error) {
	if p.Log != nil {
		p.Log(name, text, err)
	}
}
