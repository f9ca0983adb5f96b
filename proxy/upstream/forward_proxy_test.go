package upstream

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/secret"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// canary is the password of the proxies, which no error may have.
const canary = "canary%40pass"

// relay connects two connections until both have ended.
func relay(a, b net.Conn) {
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = pair[0].Close()
		})
	}
	both.Wait()
}

// forwardProxy is an HTTP proxy that wants a login, and connects to target whatever it is asked for.
type forwardProxy struct {
	mu     sync.Mutex
	target string
	status int           // of each response instead, if not 0
	silent chan struct{} // if not nil, it does not respond until that is closed
	asked  []string
}

func (p *forwardProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host)
	p.mu.Unlock()
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:canary@pass"))
	switch {
	case p.silent != nil:
		<-p.silent
	case p.status != 0:
		w.WriteHeader(p.status)
	case r.Header.Get("Proxy-Authorization") != want:
		w.WriteHeader(http.StatusProxyAuthRequired)
	case r.Method != http.MethodConnect:
		fmt.Fprint(w, "by the proxy")
	default:
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		in, _, _ := w.(http.Hijacker).Hijack()
		fmt.Fprint(in, "HTTP/1.1 200 Connection established\r\n\r\n")
		relay(in, out)
	}
}

// withLogin returns a proxy's URL with its login.
func withLogin(scheme, address string) secret.Secret {
	return secret.New(scheme + "://user:" + canary + "@" + address)
}

// registryBehind is an https registry, whose name only the proxy can find.
func registryBehind(t *testing.T, handler http.HandlerFunc) (address string, roots *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(handler)
	t.Cleanup(s.Close)
	roots = x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return mustURL(s.URL).Host, roots
}

func sendContent(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "content") }

// fetchV2 asks an upstream for /v2/ and returns the body.
func fetchV2(t *testing.T, u *Upstream) (string, error) {
	t.Helper()
	resp, err := u.Do(t.Context(), Request{Method: http.MethodGet, Path: "/v2/"})
	if err != nil {
		if strings.Contains(fmt.Sprintf("%+v %v", err, errors.Unwrap(err)), "canary") {
			t.Errorf("the error has the password: %v", err)
		}
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// behind returns an upstream that is reached through f. Its certificate is for example.com.
func behind(t *testing.T, f *ForwardProxy, roots *x509.CertPool, c Config) *Upstream {
	t.Helper()
	c.URL, c.Forward = mustURL("https://example.com"), f
	c.resolver = newDNS(t, map[string][]string{"localhost": {"127.0.0.1"}})
	u := newUpstream(t, c)
	for _, transport := range []*http.Transport{u.own.shared, u.own.separate} {
		transport.TLSClientConfig.RootCAs = roots
	}
	return u
}

func TestUpstreamIsReachedThroughAProxyWithALogin(t *testing.T) {
	registry, roots := registryBehind(t, sendContent)
	plain := httptest.NewServer(&forwardProxy{target: registry})
	defer plain.Close()
	encrypted := httptest.NewTLSServer(&forwardProxy{target: registry})
	defer encrypted.Close()
	socks := serveSOCKS(t, registry)
	for name, at := range map[string]secret.Secret{
		"http":    withLogin("http", mustURL(plain.URL).Host),
		"https":   withLogin("https", mustURL(encrypted.URL).Host),
		"socks5":  withLogin("socks5", socks),
		"socks5h": withLogin("socks5h", socks),
		"bare":    secret.New("user:" + canary + "@" + mustURL(plain.URL).Host),
	} {
		t.Run(name, func(t *testing.T) {
			f := NewForwardProxy(secret.Secret{}, at, "")
			for _, s := range f.servers {
				s.tlsConfig.RootCAs = x509.NewCertPool()
				s.tlsConfig.RootCAs.AddCert(encrypted.Certificate())
			}
			if body, err := fetchV2(t, behind(t, f, roots, Config{})); err != nil || body != "content" {
				t.Errorf("%q, %v", body, err)
			}
		})
	}
}

func TestTheCertificatesOfARegistryDoNotCountForItsProxy(t *testing.T) {
	registry, roots := registryBehind(t, sendContent)
	p := &forwardProxy{target: registry}
	proxy := httptest.NewUnstartedServer(p)
	proxy.Config.ErrorLog = quiet()
	proxy.StartTLS()
	defer proxy.Close()
	roots.AddCert(proxy.Certificate())
	f := NewForwardProxy(secret.Secret{}, withLogin("https", mustURL(proxy.URL).Host), "")
	u := behind(t, f, roots, Config{})
	u.own.shared.TLSClientConfig.InsecureSkipVerify = true
	if _, err := fetchV2(t, u); err == nil || !strings.Contains(err.Error(), "forward proxy "+mustURL(proxy.URL).Host) || len(p.asked) > 0 {
		t.Errorf("%v, asked %q", err, p.asked)
	}
}

func TestWhatIsReachedWithoutAProxy(t *testing.T) {
	for _, test := range []struct {
		noProxy, url string
		proxied      bool
	}{
		{"", "https://a.example", true},
		{"", "http://a.example", false}, // there is no proxy for http
		{"", "https://localhost", false},
		{"", "https://127.0.0.1:5000", false},
		{"*", "https://a.example", false},
		{"a.example", "https://a.example", false},
		{"a.example", "https://b.a.example", false},
		{".a.example", "https://a.example", true},
		{".a.example", "https://b.a.example", false},
		{"a.example:5000", "https://a.example:5000", false},
		{"a.example:5000", "https://a.example", true},
		{"10.0.0.0/8", "https://10.1.2.3:5000", false},
		{"10.0.0.0/8", "https://11.1.2.3:5000", true},
		{"fd00::/8", "https://[fd00::1]:5000", false},
		{"10.1.2.3", "https://10.1.2.3", false},
		{"x, a.example", "https://a.example", false},
	} {
		f := NewForwardProxy(secret.Secret{}, secret.New("http://proxy.example:3128"), test.noProxy)
		at, err := f.choose(&http.Request{URL: mustURL(test.url)})
		if err != nil || (at != nil) != test.proxied {
			t.Errorf("NO_PROXY=%s: %s by %v, %v", test.noProxy, test.url, at, err)
		}
	}
}

func TestSettingsThatNameNoProxyAreNone(t *testing.T) {
	for _, text := range []string{"", "http://", "ftp://proxy:1", "http://pro xy", "://", "http://proxy:port"} {
		f := NewForwardProxy(secret.New(text), secret.New(text), "")
		if at, err := f.choose(&http.Request{URL: mustURL("https://a.example")}); at != nil || err != nil {
			t.Errorf("%q: %v, %v", text, at, err)
		}
	}
}

func TestAProxyThatRefusesMakesTheUpstreamUnreachable(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		url    string
		text   string
	}{
		"login":            {http.StatusProxyAuthRequired, "https://example.com", "refuses its login (407)"},
		"wrong login":      {http.StatusUnauthorized, "https://example.com", "refuses its login (401)"},
		"login, for http":  {http.StatusProxyAuthRequired, "http://example.com", "refuses its login (407)"},
		"host not allowed": {http.StatusForbidden, "https://example.com", "refuses to connect (403)"},
		"host not found":   {http.StatusBadGateway, "https://example.com", "refuses to connect (502)"},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := httptest.NewServer(&forwardProxy{status: test.status})
			defer proxy.Close()
			at := withLogin("http", mustURL(proxy.URL).Host)
			_, err := fetchV2(t, newUpstream(t, Config{URL: mustURL(test.url), Forward: NewForwardProxy(at, at, "")}))
			if !OutOfReach(err) || !strings.Contains(err.Error(), "the forward proxy "+mustURL(proxy.URL).Host+" "+test.text) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAProxyThatDiesAndReturnsIsUsedAgain(t *testing.T) {
	registry, roots := registryBehind(t, sendContent)
	proxy := httptest.NewServer(&forwardProxy{target: registry})
	at := mustURL(proxy.URL).Host
	f := NewForwardProxy(secret.Secret{}, withLogin("http", at), "")
	u := behind(t, f, roots, Config{})
	if _, err := fetchV2(t, u); err != nil {
		t.Fatal(err)
	}
	proxy.CloseClientConnections()
	proxy.Close()
	u.own.closeIdle()
	if _, err := fetchV2(t, u); !OutOfReach(err) || !strings.Contains(err.Error(), "the forward proxy "+at+" cannot be reached: connection refused") {
		t.Errorf("while it is dead: %v", err)
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	again := &httptest.Server{Listener: l, Config: &http.Server{Handler: &forwardProxy{target: registry}}}
	again.Start()
	defer again.Close()
	if body, err := fetchV2(t, u); err != nil || body != "content" {
		t.Errorf("after its return: %q, %v", body, err)
	}
}

// silentServer accepts connections and sends nothing.
func silentServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func TestAProxyThatIsSilentCostsNoMoreThanTheTimeToConnect(t *testing.T) {
	proxy := &forwardProxy{silent: make(chan struct{})}
	server := httptest.NewServer(proxy)
	defer server.Close()
	defer close(proxy.silent)
	for _, scheme := range []string{"http", "https", "socks5"} {
		at := silentServer(t)
		if scheme == "http" {
			at = mustURL(server.URL).Host
		}
		f := NewForwardProxy(secret.Secret{}, withLogin(scheme, at), "")
		u := behind(t, f, nil, Config{Registry: config.Registry{DialTimeout: 50 * time.Millisecond, HeaderTimeout: time.Hour}})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // the transport itself waits for a minute
		_, err := u.Do(ctx, Request{Method: http.MethodGet, Path: "/v2/"})
		if e, is := errors.AsType[*oci.Error](err); !is || e.Code != oci.Unavailable || ctx.Err() != nil {
			t.Errorf("%s: %v", scheme, err)
		}
		cancel()
	}
}

func TestTheTimeToConnectDoesNotLimitAResponseThroughAProxy(t *testing.T) {
	const limit = 500 * time.Millisecond
	slow := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(2 * limit)
		sendContent(w, r)
	}
	registry, roots := registryBehind(t, slow)
	proxy := httptest.NewServer(&forwardProxy{target: registry})
	defer proxy.Close()
	for scheme, at := range map[string]string{"http": mustURL(proxy.URL).Host, "socks5": serveSOCKS(t, registry)} {
		f := NewForwardProxy(secret.Secret{}, withLogin(scheme, at), "")
		u := behind(t, f, roots, Config{Registry: config.Registry{DialTimeout: limit, HeaderTimeout: time.Hour}})
		if body, err := fetchV2(t, u); err != nil || body != "content" {
			t.Errorf("%s: %q, %v", scheme, body, err)
		}
	}
}

func TestUpstreamsShareWhatIsKnownOfTheirProxy(t *testing.T) {
	f := NewForwardProxy(secret.Secret{}, withLogin("https", silentServer(t)), "")
	c := Config{Registry: config.Registry{DialTimeout: cheapFailure + 100*time.Millisecond}}
	if _, err := fetchV2(t, behind(t, f, nil, c)); err == nil || !strings.Contains(err.Error(), "does not answer in time") {
		t.Errorf("the first: %v", err)
	}
	if _, err := fetchV2(t, behind(t, f, nil, c)); err == nil || !strings.Contains(err.Error(), "could not be reached a moment ago") {
		t.Errorf("the second: %v", err)
	}
}

func TestAnUnnamedRegistryAtAForbiddenAddressIsNotAskedOfAProxy(t *testing.T) {
	f := NewForwardProxy(secret.Secret{}, secret.New("http://proxy.example:3128"), "")
	for _, host := range []string{"169.254.169.254", "127.0.0.1", "metadata.google.internal", "2130706433", "[::1]", "localhost"} {
		if u, err := New(Config{URL: &url.URL{Scheme: "https", Host: host}, Unconfigured: true, Forward: f}); err == nil {
			u.Close()
			t.Errorf("%s may be asked", host)
		}
	}
}

// serveSOCKS serves a SOCKS5 proxy that wants a login, and connects to target whatever it is asked for.
func serveSOCKS(t *testing.T, target string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	t.Cleanup(func() { l.Close(); tasks.Wait() })
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				defer conn.Close()
				if !socksHandshake(conn) {
					return
				}
				if out, err := net.Dial("tcp", target); err == nil {
					relay(conn, out)
				}
			})
		}
	})
	return l.Addr().String()
}

// socksHandshake is RFC 1928 with a login of RFC 1929, for a target that is a name.
func socksHandshake(conn net.Conn) bool {
	head := make([]byte, 2)
	if _, err := io.ReadFull(conn, head); err != nil {
		return false
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(conn, methods); err != nil || !bytes.Contains(methods, []byte{2}) {
		return false
	}
	_, _ = conn.Write([]byte{5, 2})
	login := make([]byte, 2+len("user")+1+len("canary@pass"))
	if _, err := io.ReadFull(conn, login); err != nil || string(login[2:6]) != "user" || string(login[7:]) != "canary@pass" {
		return false
	}
	_, _ = conn.Write([]byte{1, 0})
	request := make([]byte, 5)
	if _, err := io.ReadFull(conn, request); err != nil || request[3] != 3 {
		return false
	}
	if _, err := io.ReadFull(conn, make([]byte, int(request[4])+2)); err != nil {
		return false
	}
	_, err := conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	return err == nil
}
