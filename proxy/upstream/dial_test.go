package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/secret"
)

// dns answers every query over loopback UDP with the addresses set for its name.
type dns struct {
	conn *net.UDPConn
	a    map[string][]string // name → addresses, taken from the front, except the last
}

func newDNS(t *testing.T, names map[string][]string) *net.Resolver {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	d := &dns{conn, names}
	done := make(chan struct{})
	go func() { defer close(done); d.serve() }()
	t.Cleanup(func() { conn.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func (d *dns) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := d.conn.ReadFromUDP(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 || binary.BigEndian.Uint16(buf) != m.ID {
			continue
		}
		q := m.Questions[0]
		m.Response, m.Additionals = true, nil
		name := strings.TrimSuffix(q.Name.String(), ".")
		if d.a[name] == nil {
			m.RCode = dnsmessage.RCodeNameError
		}
		for _, a := range d.a[name] {
			addr := netip.MustParseAddr(a)
			header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type}
			if addr.Is4() && q.Type == dnsmessage.TypeA {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: addr.As4()}})
			} else if addr.Is6() && q.Type == dnsmessage.TypeAAAA {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
			}
		}
		reply, err := m.Pack()
		if err == nil {
			_, _ = d.conn.WriteToUDP(reply, from)
		}
	}
}

// A name that leads to metadata, or to loopback behind a public upstream's redirect,
// is refused when it is connected to, whatever the URL said.
func TestTheResolvedAddressIsWhatCounts(t *testing.T) {
	r := newDNS(t, map[string][]string{
		"metadata.test": {"169.254.169.254"}, "loop.test": {"127.0.0.1"}, "mapped.test": {"::ffff:127.0.0.1"}, "both.test": {"::1", "127.0.0.1"},
	})
	u := newUpstream(t, Config{URL: mustURL("https://registry.example"), resolver: r})
	d := dialer{Config: Config{resolver: r, Registry: config.Registry{DialTimeout: time.Second}}, upstream: u}
	for _, host := range []string{"metadata.test", "loop.test", "mapped.test", "both.test"} {
		conn, err := d.toRedirect(context.Background(), "tcp", host+":1")
		if err == nil {
			conn.Close()
		}
		if err == nil || !strings.Contains(reason(err), "must not lead sidemirror") {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestAnUnconfiguredUpstreamIsNotAtThisHostOrAtAMetadataServer(t *testing.T) {
	r := newDNS(t, map[string][]string{"rebind.test": {"127.0.0.1"}, "metadata.test": {"fd00:ec2::254"}, "link.test": {"169.254.1.1"}})
	for _, host := range []string{"rebind.test", "metadata.test", "link.test"} {
		u := newUpstream(t, Config{URL: mustURL("https://" + host), Unconfigured: true, resolver: r})
		_, err := u.Do(context.Background(), Request{Method: http.MethodGet, Path: "/v2/"})
		if err == nil || !strings.Contains(err.Error(), "must not lead sidemirror") {
			t.Errorf("%s: %v", host, err)
		}
	}
	// A forward proxy would hide the address of these.
	for _, host := range []string{"localhost:5000", "a.localhost", "127.0.0.1", "[::1]:5000", "169.254.169.254", "metadata.google.internal", "2130706433", "0x7f.1"} {
		if u, err := New(Config{URL: mustURL("https://" + host), Unconfigured: true}); err == nil {
			u.Close()
			t.Errorf("%s is let through", host)
		}
	}
}

// dialsTo reports whether the rule lets a connection to host be made.
func dialsTo(t *testing.T, dial dialFunc, host string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	conn, err := dial(ctx, "tcp", host)
	if err == nil {
		conn.Close()
	}
	_, blocked := errors.AsType[*blockedError](err)
	return !blocked
}

func TestAnUnconfiguredUpstreamMayBePrivateAndThenRedirectThere(t *testing.T) {
	u := newUpstream(t, Config{URL: mustURL("https://registry.example"), Unconfigured: true})
	d := dialer{Config: Config{Unconfigured: true, Registry: config.Registry{DialTimeout: time.Second}}, upstream: u}
	const away, here = "10.255.255.1:9", "127.0.0.1:9"
	if dialsTo(t, d.toRedirect, away) {
		t.Error("one that is not private redirects to a private address")
	}
	if !dialsTo(t, d.toUpstream, away) || !dialsTo(t, d.toRealm, away) {
		t.Error("a private address is blocked")
	}
	if !dialsTo(t, d.toRedirect, away) {
		t.Error("a private one cannot redirect to a private address")
	}
	for name, dial := range map[string]dialFunc{"upstream": d.toUpstream, "realm": d.toRealm, "redirect": d.toRedirect} {
		if dialsTo(t, dial, here) {
			t.Errorf("%s: loopback is let through", name)
		}
	}
}

func TestAnUnconfiguredUpstreamIsNotSidemirrorItself(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	own := []netip.AddrPort{netip.MustParseAddrPort("10.255.255.1:305")}
	asked := map[string]bool{"10.255.255.1:305": false, "10.255.255.1:306": true, "10.255.255.2:305": true}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() && !prefix.Addr().IsLoopback() {
			own = append(own, netip.MustParseAddrPort("0.0.0.0:307"))
			asked[prefix.Addr().String()+":307"] = false
		}
	}
	u := newUpstream(t, Config{URL: mustURL("https://registry.example"), Unconfigured: true})
	d := dialer{Config: Config{Unconfigured: true, Own: own, Registry: config.Registry{DialTimeout: time.Second}}, upstream: u}
	for host, want := range asked {
		if dialsTo(t, d.toUpstream, host) != want {
			t.Errorf("%s: want %t", host, want)
		}
	}
	d.Unconfigured = false
	if !dialsTo(t, d.toUpstream, "10.255.255.1:305") {
		t.Error("what the configuration names is blocked")
	}
}

// rpardini#85
func TestTheForwardProxyIsUsedButNotForNoProxy(t *testing.T) {
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked = append(asked, r.URL.String()) }))
	defer proxy.Close()
	forward := NewForwardProxy(secret.New(proxy.URL), secret.Secret{}, "direct.test")
	r := newDNS(t, map[string][]string{"direct.test": {"127.0.0.1"}})

	u := newUpstream(t, Config{URL: mustURL("http://behind.test"), Forward: forward, resolver: r})
	resp, err := u.Do(context.Background(), Request{Method: http.MethodGet, Path: "/v2/"})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if len(asked) != 1 || asked[0] != "http://behind.test/v2/" {
		t.Errorf("the proxy was asked for %q", asked)
	}

	direct := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer direct.Close()
	u = newUpstream(t, Config{URL: mustURL("http://direct.test:" + mustURL(direct.URL).Port()), Forward: forward, resolver: r})
	if resp, err = u.Do(context.Background(), Request{Method: http.MethodGet, Path: "/v2/"}); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if len(asked) != 1 {
		t.Errorf("the proxy was asked for %q", asked)
	}
}

// rpardini#134: an AAAA record, and no way to go there.
func TestAnAddressWithoutARouteIsPassedOver(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	r := newDNS(t, map[string][]string{"dual.test": {"2001:db8::1", "127.0.0.1"}})
	// Longer than the test waits: the addresses must be tried side by side.
	c := Config{URL: mustURL("http://dual.test:" + mustURL(server.URL).Port()), resolver: r, Registry: config.Registry{DialTimeout: time.Hour}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	resp, err := newUpstream(t, c).Do(ctx, Request{Method: http.MethodGet, Path: "/v2/"})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

func newUpstream(t *testing.T, c Config) *Upstream {
	t.Helper()
	if c.Registry.DialTimeout == 0 {
		c.Registry.DialTimeout = 5 * time.Second
	}
	u, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}
