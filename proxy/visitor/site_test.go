package visitor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sidemirror/sidemirror/internal/secret"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

// siteOf returns a site on a host with the given addresses, and its clock.
func siteOf(settings Settings, own ...string) (*Site, *time.Time) {
	s, now := New(), time.Now()
	s.now = func() time.Time { return now }
	s.private.now = s.now
	s.private.addresses = func() (list []net.Addr, err error) {
		for _, o := range own {
			ip, n, err := net.ParseCIDR(o)
			if err != nil {
				return nil, err
			}
			list = append(list, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return list, nil
	}
	s.Configure(settings)
	return s, &now
}

// from returns a request from an address, with headers.
func from(addr string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	r.RemoteAddr = net.JoinHostPort(addr, "4711")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// status returns the status of the refusal of a request, or 200.
func status(s *Site, r *http.Request) int {
	v, err := s.Admit(r)
	defer v.Leave()
	if err == nil {
		return http.StatusOK
	}
	return oci.AsError(err).HTTPStatus()
}

func TestOnlyAllowedNetworksAreServed(t *testing.T) {
	t.Parallel()
	own := []string{"127.0.0.1/8", "::1/128", "192.168.7.5/24", "203.0.113.5/24", "fd00:7::5/64", "2001:db8::5/64", "fe80::5/64", "172.17.0.1/16"}
	for _, tt := range []struct {
		allow []netip.Prefix
		from  string
		want  int
	}{
		// The private networks of the host.
		{nil, "192.168.7.9", 200}, {nil, "::ffff:192.168.7.9", 200}, {nil, "fd00:7::9", 200}, {nil, "172.17.0.2", 200},
		{nil, "192.168.8.9", 403}, {nil, "10.0.0.1", 403}, {nil, "203.0.113.9", 403}, {nil, "2001:db8::9", 403},
		{nil, "127.0.0.1", 403}, {nil, "::1", 403}, {nil, "fe80::9", 403}, {nil, "fd00:8::9", 403}, {nil, "192.0.2.1", 403},
		// What is configured, and nothing else.
		{prefixes("203.0.113.0/24"), "203.0.113.9", 200}, {prefixes("203.0.113.0/24"), "::ffff:203.0.113.9", 200},
		{prefixes("203.0.113.0/24"), "192.168.7.9", 403}, {prefixes("203.0.113.0/24"), "2001:db8::1", 403},
		{prefixes("0.0.0.0/0"), "198.51.100.1", 200}, {prefixes("0.0.0.0/0"), "::ffff:198.51.100.1", 200}, {prefixes("0.0.0.0/0"), "2001:db8::1", 403},
		{prefixes("::/0"), "2001:db8::1", 200}, {prefixes("::/0"), "198.51.100.1", 403}, {prefixes("::/0"), "::ffff:198.51.100.1", 403},
	} {
		s, _ := siteOf(Settings{Allow: tt.allow}, own...)
		if got := status(s, from(tt.from)); got != tt.want {
			t.Errorf("with %v allowed, %s gets %d, want %d", tt.allow, tt.from, got, tt.want)
		}
		if _, _, outside := s.Share(netip.MustParseAddr(tt.from)); outside != (tt.want == 403) {
			t.Errorf("with %v allowed, connections of %s count as those from outside: %v", tt.allow, tt.from, outside)
		}
	}
	if got := status(New(), from("192.168.7.9")); got != 403 {
		t.Errorf("a site that is not configured responds with %d", got)
	}
}

func TestPrivateNetworksThatComeAndGoAreNoticed(t *testing.T) {
	t.Parallel()
	s, now := siteOf(Settings{}, "10.1.0.1/16")
	look := func(want10, want192 int) {
		t.Helper()
		if a, b := status(s, from("10.1.2.3")), status(s, from("192.168.1.2")); a != want10 || b != want192 {
			t.Errorf("the networks get %d and %d, want %d and %d", a, b, want10, want192)
		}
	}
	look(200, 403)
	s.private.addresses = func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.IPv4(192, 168, 1, 1), Mask: net.CIDRMask(24, 32)}}, nil
	}
	*now = now.Add(lookAgain)
	look(403, 200)
	s.private.addresses = func() ([]net.Addr, error) { return nil, errors.New("no netlink") }
	*now = now.Add(lookAgain)
	look(403, 200)
}

func TestForgedHeadersHaveNoEffect(t *testing.T) {
	t.Parallel()
	s, _ := siteOf(Settings{Allow: prefixes("10.0.0.0/8", "127.0.0.0/8", "192.168.0.0/16"), TrustedProxies: prefixes("10.0.0.2/32")})
	for _, tt := range []struct {
		from    string
		headers []string
		want    int
	}{
		{"198.51.100.7", []string{"X-Forwarded-For", "10.9.9.9"}, 403},
		{"198.51.100.7", []string{"Forwarded", "for=10.9.9.9"}, 403},
		{"198.51.100.7", []string{"X-Real-Ip", "10.9.9.9", "True-Client-Ip", "10.9.9.9", "Cf-Connecting-Ip", "10.9.9.9", "X-Client-Ip", "10.9.9.9"}, 403},
		{"10.0.0.2", []string{"X-Forwarded-For", "10.9.9.9"}, 200},
		{"10.0.0.2", []string{"X-Forwarded-For", "10.9.9.9, 198.51.100.7"}, 403},
		{"10.0.0.2", []string{"X-Forwarded-For", "198.51.100.7, 10.9.9.9"}, 200},
		{"10.0.0.2", []string{"X-Forwarded-For", "127.0.0.1, 198.51.100.7"}, 403},
		{"10.0.0.2", []string{"Forwarded", "for=10.9.9.9", "X-Forwarded-For", "198.51.100.7"}, 403},
		{"10.0.0.2", []string{"X-Forwarded-For", "10.9.9.9, unknown"}, 403},
		{"10.0.0.2", []string{"X-Real-Ip", "10.9.9.9"}, 403},
		{"10.0.0.2", nil, 403}, // the proxy's own address is in an allowed network
		{"10.0.0.3", []string{"X-Forwarded-For", "198.51.100.7"}, 200},
	} {
		if got := status(s, from(tt.from, tt.headers...)); got != tt.want {
			t.Errorf("from %s with %q: %d, want %d", tt.from, tt.headers, got, tt.want)
		}
	}
}

func TestLimitsCountTheAddressThatAProxyNames(t *testing.T) {
	t.Parallel()
	s, now := siteOf(Settings{Allow: prefixes("0.0.0.0/0", "::/0"), TrustedProxies: prefixes("10.0.0.2/32"), Limits: Limits{Requests: 1}})
	ask := func(client string) int { return status(s, from("10.0.0.2", "X-Forwarded-For", client)) }
	for range burst {
		if got := ask("198.51.100.7"); got != 200 {
			t.Fatalf("within the limit: %d", got)
		}
	}
	if got := ask("198.51.100.7"); got != 429 {
		t.Errorf("beyond the limit: %d", got)
	}
	if got := ask("198.51.100.8"); got != 200 {
		t.Errorf("another client of the proxy: %d", got)
	}
	*now = now.Add(time.Second)
	if a, b := ask("198.51.100.7"), ask("198.51.100.7"); a != 200 || b != 429 {
		t.Errorf("a second later: %d and %d", a, b)
	}
	// A proxy may have as many connections as it needs.
	if _, most, outside := s.Share(netip.MustParseAddr("::ffff:10.0.0.2")); most != 0 || outside {
		t.Errorf("the proxy's connections: at most %d, from outside: %v", most, outside)
	}
}

func TestAnIPv6HostCannotEvadeLimitsWithItsManyAddresses(t *testing.T) {
	t.Parallel()
	s, _ := siteOf(Settings{Allow: prefixes("::/0"), Limits: Limits{Requests: 1, Connections: 5}})
	for i, a := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::ffff:ffff:ffff:ffff"} {
		for range burst / 2 {
			status(s, from(a))
		}
		if got := status(s, from(a)); got != 429 && i > 1 {
			t.Errorf("the burst is spent, and %s gets %d", a, got)
		}
	}
	if got := status(s, from("2001:db8:0:1::1")); got != 200 {
		t.Errorf("another network: %d", got)
	}
	one, most, _ := s.Share(netip.MustParseAddr("2001:db8::1"))
	if other, _, _ := s.Share(netip.MustParseAddr("2001:db8::2")); one != other || most != 5 {
		t.Errorf("two addresses of a host have the shares of %v and %v, at most %d", one, other, most)
	}
}

func TestRequestsAtATimeAreLimited(t *testing.T) {
	t.Parallel()
	s, _ := siteOf(Settings{Allow: prefixes("0.0.0.0/0"), Limits: Limits{Connections: 3}})
	var under []*Visit
	for range 3 {
		v, err := s.Admit(from("198.51.100.7"))
		if err != nil {
			t.Fatal(err)
		}
		under = append(under, v)
	}
	_, err := s.Admit(from("198.51.100.7"))
	if e := oci.AsError(err); e.HTTPStatus() != 429 || e.RetryAfter < time.Second {
		t.Errorf("one more: %v, Retry-After %v", err, e.RetryAfter)
	}
	under[0].Leave()
	under[0].Leave() // counts once
	if a, b := status(s, from("198.51.100.7")), status(s, from("198.51.100.7")); a != 200 || b != 200 {
		t.Errorf("when one has ended: %d, %d", a, b)
	}
	// A new configuration forgets nothing of what is under way.
	s.Configure(Settings{Allow: prefixes("0.0.0.0/0"), Limits: Limits{Connections: 2, Requests: 100}})
	if got := status(s, from("198.51.100.7")); got != 429 {
		t.Errorf("with a lower limit: %d", got)
	}
	under[1].Leave()
	under[2].Leave()
	if got := status(s, from("198.51.100.7")); got != 200 {
		t.Errorf("when all have ended: %d", got)
	}
}

// One IPv6 host may have 65,536 networks, and a connection of HTTP/2 a hundred requests.
func TestRequestsOfAllVisitorsAtATimeAreLimited(t *testing.T) {
	s, _ := siteOf(Settings{Allow: prefixes("::/0"), Limits: Limits{Connections: 256}})
	var visits []*Visit
	for i := range maxActive {
		v, err := s.Admit(from(fmt.Sprintf("2001:db8:0:%x::1", i%64)))
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		visits = append(visits, v)
	}
	if got := status(s, from("2001:db8:1::1")); got != http.StatusServiceUnavailable {
		t.Errorf("one more: %d", got)
	}
	for _, v := range visits {
		v.Leave()
		v.Leave()
	}
	if s.active != 0 {
		t.Errorf("%d requests count as under way", s.active)
	}
	if got := status(s, from("2001:db8:1::1")); got != http.StatusOK {
		t.Errorf("after the others: %d", got)
	}
}

func TestAddressesAreForgotten(t *testing.T) {
	t.Parallel()
	s, now := siteOf(Settings{Allow: prefixes("::/0"), Limits: Limits{Requests: 5}})
	busy, err := s.Admit(from("2001:db8:ffff::1"))
	if err != nil {
		t.Fatal(err)
	}
	var addr [16]byte
	copy(addr[:], []byte{0x20, 1, 0xd, 0xb8})
	for i := range maxAddresses + 10_000 {
		addr[5], addr[6], addr[7] = byte(i>>16), byte(i>>8), byte(i)
		if got := status(s, from(netip.AddrFrom16(addr).String())); got != 200 {
			t.Fatalf("address %d gets %d", i, got)
		}
	}
	if n := len(s.addresses); n > maxAddresses {
		t.Errorf("%d addresses are known", n)
	}
	if s.addresses[busy.from] == nil {
		t.Error("an address with a request under way is forgotten")
	}
	busy.Leave()
	*now = now.Add(2 * idleLife)
}

func TestFillsAreLimitedPerAddress(t *testing.T) {
	t.Parallel()
	s, _ := siteOf(Settings{Allow: prefixes("0.0.0.0/0"), Limits: Limits{Fills: 1}})
	v, err := s.Admit(from("198.51.100.7"))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Leave()
	done, err := v.Fill(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.Admit(from("198.51.100.8"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Leave()
	if done, err := other.Fill(t.Context()); err != nil {
		t.Errorf("another address: %v", err)
	} else {
		done()
	}
	waited := make(chan error)
	go func() {
		done, err := v.Fill(t.Context())
		if err == nil {
			done()
		}
		waited <- err
	}()
	done()
	if err := <-waited; err != nil {
		t.Errorf("a fill that waited for another: %v", err)
	}
	if done, err := (*Visit)(nil).Fill(t.Context()); err != nil {
		t.Error(err)
	} else {
		done()
	}
}

func TestBytesAreLimitedAndNoneAreLost(t *testing.T) {
	t.Parallel()
	s, _ := siteOf(Settings{Allow: prefixes("0.0.0.0/0"), Limits: Limits{Rate: 4 << 20}})
	v, err := s.Admit(from("198.51.100.7"))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Leave()
	rec := httptest.NewRecorder()
	w := v.Writer(t.Context(), rec)
	body := strings.Repeat("0123456789", 500_000) // 0.8 MB more than may be written at once
	if n, err := w.Write([]byte(body)); n != len(body) || err != nil || rec.Body.String() != body {
		t.Fatalf("%d bytes were written (%v), and they are the same: %v", n, err, rec.Body.String() == body)
	}
	// At this rate the rest would take until long after the deadline.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if n, err := v.Writer(ctx, rec).Write(make([]byte, 64<<20)); err == nil || n == 64<<20 {
		t.Errorf("64 MiB were written within 100 ms: %d, %v", n, err)
	}
	if http.NewResponseController(w).Flush() != nil {
		t.Error("the response cannot be flushed")
	}
	free, _ := siteOf(Settings{Allow: prefixes("0.0.0.0/0")})
	v, err = free.Admit(from("198.51.100.7"))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Leave()
	if v.Writer(t.Context(), rec) != http.ResponseWriter(rec) {
		t.Error("without a rate, responses are throttled")
	}
}

func TestLogins(t *testing.T) {
	t.Parallel()
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "site.htpasswd")
	if err := os.WriteFile(path, []byte("ann:"+string(hash)), 0o640); err != nil {
		t.Fatal(err)
	}
	s, _ := siteOf(Settings{Allow: prefixes("0.0.0.0/0"), Users: path})
	logIn := func(name, password string) *oci.Error {
		v, err := s.Admit(from("198.51.100.7"))
		if err != nil {
			t.Fatal(err)
		}
		defer v.Leave()
		user, err := s.LogIn(t.Context(), v, Login{name, secret.New(password)})
		if err == nil {
			if v.User != name || !s.Users.Current(user) {
				t.Errorf("%s is logged in as %q", name, v.User)
			}
			return nil
		}
		if v.User != "" || strings.Contains(err.Error(), password) {
			t.Errorf("a refused login left %q, or its password in %q", v.User, err)
		}
		return oci.AsError(err)
	}
	if err := logIn("ann", "right"); err != nil {
		t.Error(err)
	}
	for range 5 {
		if err := logIn("ann", "canary-guess"); err.HTTPStatus() != 401 {
			t.Fatal(err)
		}
	}
	if err := logIn("ann", "canary-guess"); err.HTTPStatus() != 429 || err.RetryAfter <= 0 {
		t.Errorf("after many guesses: %v", err)
	}
	s.Configure(Settings{Allow: prefixes("0.0.0.0/0"), Users: path + ".missing"})
	if err := logIn("ann", "right"); err.HTTPStatus() != 503 {
		t.Errorf("without a file that can be read: %v", err)
	}
}
