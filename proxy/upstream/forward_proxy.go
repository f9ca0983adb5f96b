package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/sidemirror/sidemirror/internal/secret"
)

// ForwardProxy is the forward proxy through which upstreams, token servers and the targets of
// redirects are asked. Nil means that there is none. Those who share one share what it remembers: a
// proxy that cannot be reached costs one of them time, and the others none.
type ForwardProxy struct {
	proxyFor func(*url.URL) (*url.URL, error)
	servers  map[string]*proxyServer // by host:port
}

// proxyServer is one server that is a forward proxy.
type proxyServer struct {
	address   string
	tls       bool
	socks     bool
	tlsConfig *tls.Config
	health    health
}

// defaultPorts are those of the schemes that a proxy's URL may have.
var defaultPorts = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}

// NewForwardProxy makes a forward proxy of the values of HTTP_PROXY, HTTPS_PROXY and NO_PROXY, read
// as engines read them. It returns nil if there is no proxy that can be used.
func NewForwardProxy(http, https secret.Secret, noProxy string) *ForwardProxy {
	f := &ForwardProxy{servers: make(map[string]*proxyServer)}
	settings := httpproxy.Config{HTTPProxy: f.add(http.Reveal()), HTTPSProxy: f.add(https.Reveal()), NoProxy: noProxy}
	if len(f.servers) == 0 {
		return nil
	}
	f.proxyFor = settings.ProxyFunc()
	return f
}

// add adds the server that a proxy's URL names, and returns the URL for the transport; "" if it cannot
// be used. The transport would use a registry's certificates for the TLS of an https proxy too: so that
// is done when the proxy is dialed, and the transport sees an http one.
func (f *ForwardProxy) add(text string) string {
	if text == "" {
		return ""
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || defaultPorts[u.Scheme] == "" {
		return ""
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), defaultPorts[u.Scheme])
	}
	s := &proxyServer{
		address: u.Host, tls: u.Scheme == "https", socks: strings.HasPrefix(u.Scheme, "socks5"),
		tlsConfig: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()},
		health:    health{longest: longestRealmBackoff},
	}
	if s.tls {
		u.Scheme = "http"
	}
	f.servers[s.address] = s
	return u.String()
}

// choose is the Proxy of a transport.
func (f *ForwardProxy) choose(r *http.Request) (*url.URL, error) {
	if f == nil {
		return nil, nil
	}
	return f.proxyFor(r.URL)
}

// server returns the proxy at an address, nil if there is none.
func (f *ForwardProxy) server(address string) *proxyServer {
	if f == nil {
		return nil
	}
	return f.servers[address]
}

// proxyError says that a forward proxy keeps an upstream out of reach.
type proxyError struct {
	address string
	what    string // after the address
	err     error  // may be nil
}

func (e *proxyError) Error() string   { return "the forward proxy " + e.address + " " + e.what }
func (e *proxyError) Unwrap() error   { return e.err }
func (e *proxyError) Timeout() bool   { return isTimeout(e.err) }
func (e *proxyError) Temporary() bool { return true }

// dial connects to the proxy. One that could not be reached a moment ago is not tried again yet.
func (s *proxyServer) dial(ctx context.Context, n net.Dialer) (net.Conn, error) {
	end, ok := s.health.admit(ctx, false)
	defer end()
	if !ok {
		return nil, &proxyError{s.address, "could not be reached a moment ago and is not tried again yet", nil}
	}
	started := time.Now()
	conn, err := s.connect(ctx, n)
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) {
			s.health.failed(err, started, false)
		}
		if isTimeout(err) {
			return nil, &proxyError{s.address, "does not answer in time", err}
		}
		return nil, &proxyError{s.address, "cannot be reached: " + reason(err), err}
	}
	s.health.connected()
	if s.socks {
		_ = conn.SetDeadline(time.Now().Add(n.Timeout))
		return &socksConn{Conn: conn}, nil
	}
	if d, ok := ctx.Value(dialingKey{}).(*dialing); ok {
		d.set(conn)
	}
	return conn, nil
}

func (s *proxyServer) connect(ctx context.Context, n net.Dialer) (net.Conn, error) {
	if !s.tls {
		return n.DialContext(ctx, "tcp", s.address)
	}
	ctx, cancel := context.WithTimeout(ctx, n.Timeout)
	defer cancel()
	return (&tls.Dialer{NetDialer: &n, Config: s.tlsConfig}).DialContext(ctx, "tcp", s.address)
}

// socksConn is a connection whose deadline ends with the SOCKS handshake. All messages of that begin
// with a version, 5 or 1 (RFC 1928, RFC 1929); neither a TLS hello nor an HTTP request does.
type socksConn struct {
	net.Conn
	done bool
}

// Write implements [net.Conn].
func (c *socksConn) Write(b []byte) (int, error) {
	if !c.done && len(b) > 0 && b[0] > 5 {
		c.done = true
		_ = c.Conn.SetDeadline(time.Time{})
	}
	return c.Conn.Write(b)
}

// dialing is the connection to a proxy that is being made for a request, whose context has it.
type dialing struct {
	mu   sync.Mutex
	conn net.Conn
}

type dialingKey struct{}

func (d *dialing) set(conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conn = conn
}

// deadline sets the deadline of the connection that ctx has. The zero time removes it.
func deadline(ctx context.Context, at time.Time) {
	d, ok := ctx.Value(dialingKey{}).(*dialing)
	if !ok {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.SetDeadline(at)
	}
}

// use makes a transport reach hosts through the proxy. The proxy may take as long to connect to a host
// as a connection may take.
func (f *ForwardProxy) use(t *http.Transport, limit time.Duration) {
	if f == nil {
		return
	}
	t.Proxy = f.choose
	t.GetProxyConnectHeader = func(ctx context.Context, _ *url.URL, _ string) (http.Header, error) {
		deadline(ctx, time.Now().Add(limit))
		return nil, nil
	}
	t.OnProxyConnectResponse = func(ctx context.Context, at *url.URL, _ *http.Request, resp *http.Response) error {
		deadline(ctx, time.Time{})
		return refusal(at, resp)
	}
}

// refusal returns what a proxy's response other than 200 to a CONNECT means.
func refusal(at *url.URL, resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusProxyAuthRequired, http.StatusUnauthorized: // tinyproxy sends 401 for a wrong login
		return &proxyError{at.Host, fmt.Sprintf("refuses its login (%d)", resp.StatusCode), nil}
	}
	return &proxyError{at.Host, fmt.Sprintf("refuses to connect (%d)", resp.StatusCode), nil}
}

// check returns an error if a response is the proxy's own and not that of the host that was asked.
func (f *ForwardProxy) check(req *http.Request, resp *http.Response) error {
	if f == nil || resp.StatusCode != http.StatusProxyAuthRequired {
		return nil
	}
	at, err := f.choose(req)
	if err != nil || at == nil {
		return nil
	}
	drain(resp)
	return refusal(at, resp)
}
