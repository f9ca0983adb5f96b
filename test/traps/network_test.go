package traps

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// Source: distribution#4490.
func TestUpstreamThatIsDownAtStartIsNoPanic(t *testing.T) {
	address := harness.FreeAddress(t)
	s := harness.Start(t, harness.Options{Registries: []harness.Registry{
		{Name: name, Upstreams: []string{"http://" + address}},
		{Name: "nowhere.test", Upstreams: []string{"https://nowhere.invalid"}},
	}})
	for _, p := range []string{path("manifests/v1"), "/v2/team/app/manifests/v1?ns=nowhere.test", "/v2/nowhere.test/team/app/manifests/v1"} {
		if a := s.Get(p, nil); a.Status != 502 && a.Status != 504 {
			t.Errorf("%s: status %d, want 502", p, a.Status)
		}
	}
	if strings.Contains(s.Log(), "panic") {
		t.Errorf("the log speaks of a panic:\n%s", s.Log())
	}
	up := quirky.New(t, quirky.Options{Address: address})
	up.Add(repo, "v1", image)
	s.Eventually("a pull succeeds once the upstream is up", func() bool {
		return s.Get(path("manifests/v1"), nil).Status == 200
	})
}

// Source: distribution#4490.
func TestUpstreamThatTakesConnectionsAndSaysNothingIsGivenUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := harness.Start(t, harness.Options{Registries: []harness.Registry{{
		Name: name, Upstreams: []string{"http://" + l.Addr().String()}, HeaderTimeout: time.Second,
	}}})
	if a := s.Get(path("manifests/v1"), nil); a.Status != 504 {
		t.Errorf("status %d, want 504", a.Status)
	}
}

// webProxy is a forward proxy for the daemon's environment. It leads every host to
// one address, and counts.
type webProxy struct {
	*httptest.Server
	to   string
	mu   sync.Mutex
	seen []string
	wait sync.WaitGroup
}

func newWebProxy(t *testing.T, to string) *webProxy {
	p := &webProxy{to: to}
	p.Server = httptest.NewServer(p)
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
		p.wait.Wait()
	})
	return p
}

func (p *webProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.seen = append(p.seen, r.Method+" "+r.Host)
	p.mu.Unlock()
	if r.Method == http.MethodConnect {
		p.tunnel(w)
		return
	}
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Host = "", p.to
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	resp, err := transport.RoundTrip(out)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

func (p *webProxy) tunnel(w http.ResponseWriter) {
	far, err := net.Dial("tcp", p.to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	near, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		far.Close()
		return
	}
	_, _ = io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
	for _, c := range [][2]net.Conn{{near, far}, {far, near}} {
		p.wait.Go(func() {
			_, _ = io.Copy(c[0], c[1])
			near.Close()
			far.Close()
		})
	}
}

// hosts are what came through it.
func (p *webProxy) hosts() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.seen...)
}

// Source: rpardini/docker-registry-proxy#85.
func TestProxyOfTheEnvironmentIsUsedUpstreamAndNoProxyIsHonoured(t *testing.T) {
	for _, x := range []struct {
		what, scheme, variable, noProxy string
		through                         bool
	}{
		{"HTTPS_PROXY", "https", "HTTPS_PROXY", "", true},
		{"https_proxy", "https", "https_proxy", "other.test", true},
		{"HTTP_PROXY", "http", "HTTP_PROXY", "", true},
		{"NO_PROXY for https", "https", "HTTPS_PROXY", "registry.test", false},
		{"NO_PROXY for http", "http", "HTTP_PROXY", ".test", false},
		{"HTTPS_PROXY is not for http", "http", "HTTPS_PROXY", "", false},
	} {
		t.Run(x.what, func(t *testing.T) {
			var web *webProxy
			r := start(t, quirky.Options{TLS: x.scheme == "https"}, func(up *quirky.Server, h *harness.Options) {
				web = newWebProxy(t, up.Host())
				_, port, _ := strings.Cut(up.Host(), ":")
				h.Registries[0].Upstreams = []string{x.scheme + "://registry.test:" + port}
				h.Env = []string{x.variable + "=" + web.URL, "NO_PROXY=" + x.noProxy}
				h.Hosts = "127.0.0.1 localhost registry.test\n"
			})
			r.pull()
			if seen := web.hosts(); (len(seen) > 0) != x.through {
				t.Errorf("through the proxy came %v", seen)
			} else if x.through && !strings.Contains(seen[0], "registry.test") {
				t.Errorf("the proxy was asked for %s, not for the upstream's name", seen[0])
			}
		})
	}
}

// Source: rpardini/docker-registry-proxy#136.
func TestAddressWithoutARouteDelaysNoClient(t *testing.T) {
	for what, hosts := range map[string]string{
		// 2001:db8::/32 is routed nowhere; where there is no IPv6 at all it fails at once.
		"AAAA without a route": "2001:db8::1 registry.test\n127.0.0.1 localhost registry.test\n",
		"AAAA that refuses":    "::1 registry.test\n127.0.0.1 localhost registry.test\n",
	} {
		t.Run(what, func(t *testing.T) {
			r := start(t, quirky.Options{}, func(up *quirky.Server, h *harness.Options) {
				_, port, _ := strings.Cut(up.Host(), ":")
				h.Registries[0].Upstreams = []string{"http://registry.test:" + port}
				// Longer than the client waits: the addresses must be tried side by side.
				h.Registries[0].DialTimeout = 5 * time.Minute
				h.Hosts = hosts
			})
			r.whole("the manifest", r.Get(path("manifests/v1"), nil), image.Bytes)
		})
	}
}

func TestUpstreamThatIsOurselvesIsNoLoop(t *testing.T) {
	for _, hosts := range [][]string{nil, {"self.test"}} {
		address := harness.FreeAddress(t)
		_, port, _ := strings.Cut(address, ":")
		s := harness.Start(t, harness.Options{
			Listen: []string{address}, Hosts: "127.0.0.1 localhost self.test\n",
			Registries: []harness.Registry{{Name: name, Upstreams: []string{"http://self.test:" + port}, Hosts: hosts}},
		})
		for _, p := range []string{path("manifests/v1"), blobPath(layer)} {
			if a := s.Get(p, nil); a.Status < 400 {
				t.Errorf("%s: status %d", p, a.Status)
			}
		}
		if n := strings.Count(s.Log(), "msg=request"); n > 10 {
			t.Errorf("two requests became %d", n)
		}
	}
}

func TestUpstreamWithAWrongCertificateIs502AndSaysWhy(t *testing.T) {
	r := startCold(t, quirky.Options{TLS: true}, func(_ *quirky.Server, h *harness.Options) { h.Registries[0].CA = "" })
	a := r.Get(path("manifests/v1"), nil)
	r.status("an unknown authority", a, 502)
	if !strings.Contains(string(a.Body), "certificate") {
		t.Errorf("the error does not speak of the certificate: %s", a.Body)
	}
	if n := len(r.up.All()); n != 0 {
		t.Errorf("%d requests were sent to a server without a trusted certificate", n)
	}
}
