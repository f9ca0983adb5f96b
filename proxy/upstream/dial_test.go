package upstream

import (
	"context"
	"encoding/binary"
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
)

func TestAddressesAreClassified(t *testing.T) {
	for want, addresses := range map[class]string{
		public: "1.1.1.1 8.8.8.8 2606:4700::1111 100.128.0.1 172.32.0.1 ::ffff:1.1.1.1 64:ff9b::101:101 2002:101:101::1",
		private: "127.0.0.1 127.9.9.9 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1 ::1 fd12::1 fec0::1 " +
			"::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1::1 64:ff9b:1::1",
		forbidden: "169.254.169.254 169.254.1.1 100.100.100.200 fd00:ec2::254 fe80::1 fe80::1%eth0 0.0.0.0 0.1.2.3 :: 224.0.0.1 ff02::1 " +
			"255.255.255.255 240.0.0.1 ::ffff:169.254.169.254 ::ffff:a9fe:a9fe 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1",
	} {
		for a := range strings.FieldsSeq(addresses) {
			if got := classify(netip.MustParseAddr(a)); got != want {
				t.Errorf("%s is of class %d, want %d", a, got, want)
			}
		}
	}
}

func TestHostsThatAreAddressesInDisguise(t *testing.T) {
	for _, host := range strings.Fields("127.1 2130706433 0x7f000001 0x7f.1 127.0.0.1 0177.0.0.1 127.0.1 169.254.169.254 ::ffff:a9fe:a9fe ::1 1.2.3.4.5 10.0.0.1 127.0.0.1. 0x7f000001.") {
		if err := checkHost(host, false); err == nil {
			t.Errorf("%s is let through", host)
		}
	}
	for _, host := range strings.Fields("cdn.example a.b.c1 1.1.1.1 2606:4700::1111 0xabc.example s3.eu-west-1.amazonaws.com 1.2.3.4.example") {
		if err := checkHost(host, false); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if err := checkHost("10.0.0.1", true); err != nil {
		t.Errorf("a private upstream may redirect into private space: %v", err)
	}
	if err := checkHost("169.254.169.254", true); err == nil {
		t.Error("even a private upstream must not redirect to metadata")
	}
}

func FuzzCheckHost(f *testing.F) {
	f.Add("127.1")
	f.Add("::ffff:a9fe:a9fe")
	f.Fuzz(func(t *testing.T, host string) {
		if checkHost(host, false) != nil {
			return
		}
		if a, err := netip.ParseAddr(host); err == nil && classify(a) != public {
			t.Fatalf("%q is let through", host)
		}
	})
}

// dns answers every query over loopback UDP with the addresses set for its name.
type dns struct {
	conn *net.UDPConn
	a    map[string][]string // name → addresses, taken from the front but for the last
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
		for _, a := range d.a[strings.TrimSuffix(q.Name.String(), ".")] {
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
		if err == nil || !strings.Contains(reason(err), "must not lead us") {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestAnUnconfiguredUpstreamMustBePublic(t *testing.T) {
	r := newDNS(t, map[string][]string{"rebind.test": {"127.0.0.1"}})
	u := newUpstream(t, Config{URL: mustURL("https://rebind.test"), Unconfigured: true, resolver: r})
	_, err := u.Do(context.Background(), Request{Method: http.MethodGet, Path: "/v2/"})
	if err == nil || !strings.Contains(err.Error(), "must not lead us") {
		t.Errorf("%v", err)
	}
}

// rpardini#85
func TestTheEnvironmentsProxyIsUsedButNotForNoProxy(t *testing.T) {
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked = append(asked, r.URL.String()) }))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("NO_PROXY", "direct.test")
	r := newDNS(t, map[string][]string{"direct.test": {"127.0.0.1"}})

	u := newUpstream(t, Config{URL: mustURL("http://behind.test"), resolver: r})
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
	u = newUpstream(t, Config{URL: mustURL("http://direct.test:" + mustURL(direct.URL).Port()), resolver: r})
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
	u := newUpstream(t, Config{URL: mustURL("http://dual.test:" + mustURL(server.URL).Port()), resolver: r})
	started := time.Now()
	resp, err := u.Do(context.Background(), Request{Method: http.MethodGet, Path: "/v2/"})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
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
