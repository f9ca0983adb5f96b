package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	// diagnosis bounds how long an upstream is examined.
	diagnosis = 20 * time.Second

	// clockTolerance is by how much the clocks of two hosts may differ before tokens and
	// certificates are in danger.
	clockTolerance = 5 * time.Minute
)

// Step is one thing that a request to an upstream needs, and what was seen of it.
type Step struct {
	Name string // "host name", "connection", "certificate", "clock", "response", "login"
	Text string

	// Problem is what is wrong; nil if nothing is.
	Problem *problem.Problem
}

// Diagnose asks the upstream for /v2/ over a connection of its own, and says how far that came. If it
// responds, cred is checked there as by [Upstream.Login]; unread is why a login that may exist cannot
// be read. The last step is the one that failed, if one did.
func (u *Upstream) Diagnose(ctx context.Context, cred credential.Credential, unread error) []Step {
	ctx, cancel := context.WithTimeout(ctx, diagnosis)
	defer cancel()
	d := &diagnoser{upstream: u}
	if d.reach(ctx) {
		d.login(ctx, cred, unread)
	}
	return d.steps
}

// diagnoser collects steps.
type diagnoser struct {
	upstream  *Upstream
	addresses []net.IPAddr
	connected string // the address of the other end
	secured   bool
	steps     []Step
}

func (d *diagnoser) sound(name, format string, args ...any) {
	d.steps = append(d.steps, Step{Name: name, Text: fmt.Sprintf(format, args...)})
}

func (d *diagnoser) broken(name string, p *problem.Problem) bool {
	d.steps = append(d.steps, Step{Name: name, Problem: p})
	return false
}

// reach asks for /v2/ and reports whether the upstream has responded as a registry does.
func (d *diagnoser) reach(ctx context.Context) bool {
	u := d.upstream
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSDone: func(i httptrace.DNSDoneInfo) { d.addresses = i.Addrs },
		GotConn: func(i httptrace.GotConnInfo) { d.connected = i.Conn.RemoteAddr().String() },
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			d.secured = d.secured || err == nil
		},
	})
	u.own.separate.CloseIdleConnections()
	req := newRequest(onItsOwn(ctx), http.MethodGet, auth.Join(u.url, "/v2/"), nil, u.userAgent)
	resp, err := u.own.connections.RoundTrip(req)
	if err != nil {
		return d.failed(err)
	}
	defer drain(resp)
	d.came()
	if ok := d.clock(resp, time.Now()); !ok {
		return false
	}
	switch status := resp.StatusCode; {
	case status == http.StatusTooManyRequests:
		return d.broken("response", &problem.Problem{
			Code: "upstream-rate-limited", Text: u.url.Host + " answers 429: it allows no more requests for now",
			Hint: "log in, or wait: sidemirror login " + u.url.Host,
		})
	case status >= http.StatusInternalServerError:
		return d.broken("response", &problem.Problem{
			Code: "upstream-failing", Text: fmt.Sprintf("%s answers %d", u.url.Host, status), Hint: "wait until the registry is well again; see its status page",
		})
	case status != http.StatusOK && status != http.StatusUnauthorized && status != http.StatusForbidden:
		return d.broken("response", &problem.Problem{
			Code: "upstream-no-registry", Text: fmt.Sprintf("%s answers %d to /v2/, as no registry does", u.url.Host, status),
			Hint: "check upstreams of this registry in the configuration",
		})
	}
	d.sound("response", "%s answers as a registry", u.url.Host)
	return true
}

// came adds the steps that a response shows to be sound.
func (d *diagnoser) came() {
	if len(d.addresses) > 0 {
		list := make([]string, 0, len(d.addresses))
		for _, a := range d.addresses {
			list = append(list, a.String())
		}
		const most = 4
		d.sound("host name", "%s", strings.Join(list[:min(len(list), most)], ", "))
	}
	d.sound("connection", "connected to %s", d.connected)
	if d.secured {
		d.sound("certificate", "trusted")
	}
}

// failed adds the step that err is about.
func (d *diagnoser) failed(err error) bool {
	host := d.upstream.url.Host
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		if e.IsNotFound {
			return d.broken("host name", &problem.Problem{Code: "upstream-name-unknown", Text: "there is no host " + e.Name, Hint: "check the name, and this host's name servers: resolvectl query " + e.Name})
		}
		return d.broken("host name", &problem.Problem{Code: "name-servers-silent", Text: "the name " + e.Name + " cannot be looked up: " + e.Err, Hint: "check this host's name servers: cat /etc/resolv.conf"})
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "proxyconnect" {
		text := "the forward proxy cannot be reached: " + reason(err)
		if ofProxy, ok := errors.AsType[*proxyError](err); ok {
			text = ofProxy.Error()
		}
		return d.broken("connection", &problem.Problem{Code: "proxy-unreachable", Text: text, Hint: "check the proxy settings: sidemirror status"})
	}
	if p := certificateProblem(host, err); p != nil {
		return d.broken("certificate", p)
	}
	if d.connected != "" {
		text := host + " ends the connection without an answer"
		if _, late := errors.AsType[lateError](err); late || errors.Is(err, context.DeadlineExceeded) {
			text = host + " accepts connections and does not answer"
		}
		return d.broken("response", &problem.Problem{Code: "upstream-silent", Text: text, Hint: "wait until the registry is well again; see its status page"})
	}
	return d.broken("connection", &problem.Problem{Code: "upstream-unreachable", Text: host + " cannot be reached: " + reason(err), Hint: "check the network, firewalls and the proxy settings of this host"})
}

// certificateProblem returns what keeps the certificate of a host from being trusted, nil if err is
// about something else.
func certificateProblem(host string, err error) *problem.Problem {
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return &problem.Problem{Code: "upstream-not-tls", Text: host + " does not speak TLS: " + e.Msg, Hint: "if it is meant to be asked by plain HTTP, name it as http:// in upstreams"}
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired && e.Cert != nil {
		return &problem.Problem{
			Code: "upstream-certificate-expired",
			Text: fmt.Sprintf("the certificate of %s is valid from %s to %s, and this host's clock says %s", host, day(e.Cert.NotBefore), day(e.Cert.NotAfter), day(time.Now())),
			Hint: "check the clock: timedatectl; if it is right, the registry needs a new certificate",
		}
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return &problem.Problem{Code: "upstream-certificate-name", Text: "the certificate of " + host + " is for another name", Err: e, Hint: "check the name of the registry, and whether a proxy answers in its place"}
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return &problem.Problem{
			Code: "upstream-ca-unknown", Text: "the certificate of " + host + " is signed by an authority that this host does not know",
			Hint: "name the authority's certificate as ca in the registry's table of the configuration, or add it to the system's",
		}
	}
	_, verified := errors.AsType[*tls.CertificateVerificationError](err)
	if _, alert := errors.AsType[tls.AlertError](err); verified || alert || strings.Contains(err.Error(), "tls:") {
		return &problem.Problem{Code: "upstream-tls-failed", Text: "the TLS handshake with " + host + " failed", Err: errors.New(reason(err)), Hint: "see journalctl -u sidemirror"}
	}
	return nil
}

// day writes a time so that two can be compared.
func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// clock compares this host's clock with the upstream's.
func (d *diagnoser) clock(resp *http.Response, now time.Time) bool {
	theirs, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return true // it does not say
	}
	if off := now.Sub(theirs); off.Abs() > clockTolerance {
		return d.broken("clock", &problem.Problem{
			Code: "clock-wrong", Text: fmt.Sprintf("this host's clock says %s, and that of %s says %s", day(now), d.upstream.url.Host, day(theirs)),
			Hint: "set the clock: timedatectl",
		})
	}
	d.sound("clock", "agrees with that of %s", d.upstream.url.Host)
	return true
}

// login checks a login, if there is one.
func (d *diagnoser) login(ctx context.Context, cred credential.Credential, unread error) {
	host := d.upstream.url.Host
	switch {
	case unread != nil:
		d.broken("login", problem.Coded(unread, "login-unreadable"))
	case cred.IsZero():
		d.sound("login", "none: public images only")
	default:
		err := d.upstream.Login(ctx, cred)
		if e, ok := errors.AsType[*oci.Error](err); ok && e.Code == oci.Unauthorized {
			d.broken("login", &problem.Problem{Code: "login-refused", Text: e.Message, Hint: "sidemirror login " + host})
		} else if err != nil {
			d.broken("login", problem.Coded(err, "login-unchecked"))
		} else {
			d.sound("login", "accepted by %s", host)
		}
	}
}
