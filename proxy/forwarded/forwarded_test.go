package forwarded

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// proxies are the trusted ones of these tests.
var proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64"), netip.MustParsePrefix("127.0.0.1/32")}

func requestFrom(addr string, headers ...string) *http.Request {
	r := &http.Request{RemoteAddr: addr, Host: "asked.example", Header: http.Header{}}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestClientIsTheLastHopThatNoTrustedProxyIs(t *testing.T) {
	t.Parallel()
	const xff, fwd = "X-Forwarded-For", "Forwarded"
	for _, tt := range []struct {
		from    string
		headers []string
		want    string
	}{
		{"198.51.100.7:1", nil, "198.51.100.7"},
		{"[::ffff:198.51.100.7]:1", nil, "198.51.100.7"},
		{"[fe80::1%eth0]:1", nil, "fe80::1"},
		// What a client that is no proxy claims.
		{"198.51.100.7:1", []string{xff, "10.0.0.9"}, "198.51.100.7"},
		{"198.51.100.7:1", []string{fwd, "for=10.0.0.9"}, "198.51.100.7"},
		{"198.51.100.7:1", []string{xff, "1.1.1.1", fwd, "for=2.2.2.2"}, "198.51.100.7"},
		// What a proxy says.
		{"10.0.0.1:1", []string{xff, "198.51.100.7"}, "198.51.100.7"},
		{"[::ffff:10.0.0.1]:1", []string{xff, "198.51.100.7"}, "198.51.100.7"},
		{"[fd00::5]:1", []string{xff, "2001:db8::1"}, "2001:db8::1"},
		{"10.0.0.1:1", []string{xff, "::ffff:198.51.100.7"}, "198.51.100.7"},
		{"10.0.0.1:1", []string{xff, "198.51.100.7:4711"}, "198.51.100.7"},
		{"10.0.0.1:1", []string{xff, "[2001:db8::1]:4711"}, "2001:db8::1"},
		{"10.0.0.1:1", []string{xff, "[2001:db8::1]"}, "2001:db8::1"},
		{"10.0.0.1:1", []string{fwd, "for=198.51.100.7"}, "198.51.100.7"},
		{"10.0.0.1:1", []string{fwd, `For="[2001:db8::1]:4711";proto=https;by=10.0.0.1`}, "2001:db8::1"},
		{"10.0.0.1:1", []string{fwd, `proto=https; for="198.51.100.7:80" ; host=a`}, "198.51.100.7"},
		// What a client claims through a proxy.
		{"10.0.0.1:1", []string{xff, "192.168.0.1, 198.51.100.7"}, "198.51.100.7"},
		{"10.0.0.1:1", []string{xff, "192.168.0.1", xff, "198.51.100.7"}, "198.51.100.7"},
		{"10.0.0.1:1", []string{xff, "no address, 198.51.100.7"}, "198.51.100.7"},
		{"10.0.0.1:1", []string{fwd, "for=192.168.0.1, for=198.51.100.7"}, "198.51.100.7"},
		{"10.0.0.1:1", []string{xff, "192.168.0.1, 198.51.100.7, 10.0.0.2, fd00::3"}, "198.51.100.7"},
		{"10.0.0.1:1", []string{xff, "10.0.0.3,10.0.0.2"}, "10.0.0.3"},
		{"10.0.0.1:1", []string{fwd, "for=192.168.0.1,for=198.51.100.7;proto=http", fwd, "for=10.0.0.2"}, "198.51.100.7"},
		{"10.0.0.1:1", []string{xff, "198.51.100.7", fwd, "for=198.51.100.7"}, "198.51.100.7"},
	} {
		got, err := Of(requestFrom(tt.from, tt.headers...), proxies)
		if err != nil || got.Addr.String() != tt.want {
			t.Errorf("from %s with %q: %v (%v), want %s", tt.from, tt.headers, got.Addr, err, tt.want)
		}
	}
}

func TestClientThatAProxyDoesNotNameIsUnknown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		headers []string
		want    error
	}{
		{nil, ErrUnnamed},
		{[]string{"X-Forwarded-Proto", "https"}, ErrUnnamed},
		{[]string{"Forwarded", " "}, ErrUnnamed},
		{[]string{"X-Forwarded-For", ""}, ErrUnreadable},
		{[]string{"X-Forwarded-For", "198.51.100.7,"}, ErrUnreadable},
		{[]string{"X-Forwarded-For", "192.168.0.1, unknown"}, ErrUnreadable},
		{[]string{"X-Forwarded-For", "192.168.0.1, [198.51.100.7]"}, ErrUnreadable},
		{[]string{"X-Forwarded-For", "192.168.0.1, 198.51.100"}, ErrUnreadable},
		{[]string{"Forwarded", "for=192.168.0.1, for=_hidden"}, ErrUnreadable},
		{[]string{"Forwarded", "for=192.168.0.1, proto=https"}, ErrUnreadable},
		{[]string{"Forwarded", "for=192.168.0.1;for=198.51.100.7"}, ErrUnreadable},
		{[]string{"Forwarded", `for="192.168.0.1, for=198.51.100.7`}, ErrUnreadable},
		{[]string{"Forwarded", `for=192.168.0.1 for=198.51.100.7`}, ErrUnreadable},
		// A client may write the header that its proxy does not.
		{[]string{"Forwarded", "for=192.168.0.1", "X-Forwarded-For", "198.51.100.7"}, ErrConflict},
		{[]string{"Forwarded", "for=198.51.100.7", "X-Forwarded-For", "192.168.0.1"}, ErrConflict},
		{[]string{"Forwarded", `"`, "X-Forwarded-For", "198.51.100.7"}, ErrUnreadable},
	} {
		got, err := Of(requestFrom("10.0.0.1:1", tt.headers...), proxies)
		if !errors.Is(err, tt.want) || got.Addr.IsValid() {
			t.Errorf("with %q: %v, %v, want %v", tt.headers, got.Addr, err, tt.want)
		}
	}
	for _, from := range []string{"", "@", "10.0.0.1", "[::1]"} {
		if got, err := Of(requestFrom(from), proxies); !errors.Is(err, ErrNoAddress) || got.Addr.IsValid() {
			t.Errorf("from %q: %v, %v", from, got.Addr, err)
		}
	}
}

func TestSchemeAndHostAreThoseOfTheTrustedProxy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from         string
		tls          bool
		headers      []string
		scheme, host string
	}{
		{"198.51.100.7:1", false, nil, "http", "asked.example"},
		{"198.51.100.7:1", true, nil, "https", "asked.example"},
		{"198.51.100.7:1", false, []string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil.example"}, "http", "asked.example"},
		{"198.51.100.7:1", false, []string{"Forwarded", "for=1.1.1.1;proto=https;host=evil.example"}, "http", "asked.example"},
		{"10.0.0.1:1", false, []string{"X-Forwarded-Proto", "https"}, "https", "asked.example"},
		{"10.0.0.1:1", false, []string{"X-Forwarded-For", "1.1.1.1", "X-Forwarded-Proto", "HTTPS", "X-Forwarded-Host", "docker.example.com:8443"}, "https", "docker.example.com:8443"},
		{"10.0.0.1:1", false, []string{"X-Forwarded-For", "1.1.1.1", "X-Forwarded-Host", "evil.example, docker.example.com"}, "http", "docker.example.com"},
		{"10.0.0.1:1", true, []string{"X-Forwarded-For", "1.1.1.1", "X-Forwarded-Proto", "gopher", "X-Forwarded-Host", "a b/\r"}, "https", "asked.example"},
		{"10.0.0.1:1", false, []string{"Forwarded", "for=1.1.1.1;proto=https;host=docker.example.com"}, "https", "docker.example.com"},
		{"10.0.0.1:1", false, []string{"Forwarded", "for=1.1.1.1;proto=https;host=evil.example, for=2.2.2.2;proto=https;host=docker.example.com, for=10.0.0.2;proto=http;host=inner"}, "https", "docker.example.com"},
		// The proxy that writes X-Forwarded-For passes on a Forwarded that its client made.
		{"10.0.0.1:1", false, []string{"X-Forwarded-For", "1.1.1.1", "Forwarded", "for=1.1.1.1;proto=https;host=evil.example"}, "http", "asked.example"},
	} {
		r := requestFrom(tt.from, tt.headers...)
		if tt.tls {
			r.TLS = &tls.ConnectionState{}
		}
		if got, _ := Of(r, proxies); got.Scheme != tt.scheme || got.Host != tt.host {
			t.Errorf("from %s with %q: %s %s, want %s %s", tt.from, tt.headers, got.Scheme, got.Host, tt.scheme, tt.host)
		}
	}
}

// Whatever a client puts in front of what its proxy adds, it stays the client that the proxy names.
func FuzzClaimsDoNotMoveTheClient(f *testing.F) {
	f.Add("192.168.0.1", "for=192.168.0.1")
	f.Add("", "")
	f.Add("10.0.0.2, ", `for="10.0.0.2`)
	f.Add("unknown", `for="\";for=10.0.0.2`)
	f.Add(`"`, `host="a,b";proto=`)
	f.Fuzz(func(t *testing.T, legacy, standard string) {
		if strings.ContainsAny(legacy+standard, "\r\n\x00") {
			return
		}
		const client = "198.51.100.7"
		for _, headers := range [][]string{
			{"X-Forwarded-For", legacy + ", " + client},
			{"X-Forwarded-For", legacy, "X-Forwarded-For", client},
			{"Forwarded", standard + ", for=" + client},
			{"Forwarded", standard, "Forwarded", "for=" + client},
			{"X-Forwarded-For", client, "Forwarded", standard},
			{"X-Forwarded-For", legacy, "Forwarded", "for=" + client},
		} {
			got, err := Of(requestFrom("10.0.0.1:1", headers...), proxies)
			if err == nil && got.Addr.String() != client {
				t.Fatalf("%q: the client is %v", headers, got.Addr)
			}
			if err != nil && got.Addr.IsValid() {
				t.Fatalf("%q: %v, and yet the client is %v", headers, err, got.Addr)
			}
		}
	})
}
