package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/proxy/access"
)

const siteName = "docker.example.com"

// siteFiles writes a certificate for names and its key.
func siteFiles(t *testing.T, dir string, names ...string) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "site.pem"), filepath.Join(dir, "site.key")
	replaceFile(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})))
	replaceFile(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return cert, key, pool
}

// siteClient returns a client that finds the site's name at addr, and follows no redirect.
func siteClient(t *testing.T, addr string, pool *x509.CertPool) *http.Client {
	t.Helper()
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool}}
	transport.DialContext = func(ctx context.Context, network, to string) (net.Conn, error) {
		if strings.HasPrefix(to, siteName) {
			to = addr
		}
		return new(net.Dialer).DialContext(ctx, network, to)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func siteConfig(listen, at, rest string) string {
	return fmt.Sprintf("listen = [%q]\n[registry.'docker.io']\nhosts = [%q]\n[site]\nlisten = [%q]\n%s", listen, siteName, at, rest)
}

func TestSiteIsServedOverTLSAndHTTP2WithTheCertificateThatIsInTheFile(t *testing.T) {
	own, at := freeAddr(t), freeAddr(t)
	dir := t.TempDir()
	cert, key, pool := siteFiles(t, dir, siteName)
	rest := fmt.Sprintf("cert = %q\nkey = %q\n", cert, key)
	r := begin(t, writeConfig(t, siteConfig(own, at, rest)), nil)
	response := func(pool *x509.CertPool) (*http.Response, error) {
		resp, err := siteClient(t, at, pool).Get("https://" + siteName + "/")
		if err == nil {
			_ = resp.Body.Close()
		}
		return resp, err
	}
	resp, err := response(pool)
	if err != nil || resp.StatusCode != 200 || resp.ProtoMajor != 2 || resp.TLS.Version < tls.VersionTLS12 {
		t.Fatalf("%+v, %v\n%s", resp, err, r.log)
	}
	_, _, next := siteFiles(t, dir, siteName)
	waitFor(t, func() bool { _, err := response(next); return err == nil })
	wantAnswer(t, own, siteName)

	// A file that is damaged leaves the certificate in use.
	replaceFile(t, cert, "no certificate")
	waitFor(t, func() bool { return strings.Contains(r.log.String(), "site-certificate-unreadable") })
	if _, err := response(next); err != nil {
		t.Errorf("the certificate that was in use is not any more: %v", err)
	}
	wantAnswer(t, own, siteName)

	r.rewrite(siteConfig(own, at, "tls = 'off'\n"))
	waitFor(t, func() bool { got, err := get(t, at); return err == nil && got == siteName })
	r.rewrite(named(siteName, own))
	waitFor(t, func() bool { _, err := get(t, at); return err != nil })
	wantAnswer(t, own, siteName)
}

func TestPlainHTTPIsRedirectedToTheSite(t *testing.T) {
	own, at, plain := freeAddr(t), freeAddr(t), freeAddr(t)
	cert, key, _ := siteFiles(t, t.TempDir(), siteName)
	begin(t, writeConfig(t, siteConfig(own, at, fmt.Sprintf("cert = %q\nkey = %q\nhttp_listen = [%q]\n", cert, key, plain))), nil)
	_, port, _ := net.SplitHostPort(at)
	client := siteClient(t, plain, nil)
	for path, want := range map[string]string{
		"http://" + siteName + "/v2/?a=b%20c":                        "https://" + siteName + ":" + port + "/v2/?a=b%20c",
		"http://" + siteName + ":8080/":                              "https://" + siteName + ":" + port + "/",
		"http://" + siteName + "/.well-known/acme-challenge/unknown": "",
		"http://" + plain + "/v2/":                                   "",
	} {
		resp, err := client.Get(path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if got := resp.Header.Get("Location"); got != want || want == "" && resp.StatusCode != 404 || want != "" && resp.StatusCode != 308 {
			t.Errorf("%s: %d, Location %q, want %q: %s", path, resp.StatusCode, got, want, body)
		}
	}
}

func TestSiteAddressThatIsTakenIsOpenedWhenItIsFree(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := newDaemon(config.Source{}, io.Discard)
	d.work = t.Context()
	d.server = d.newServer()
	d.handler.swap(newGeneration(t.Context(), &fake{name: "site", closed: make(chan struct{})}))
	d.site.set(mustLoad(t, siteConfig("127.0.0.1:305", taken.Addr().String(), "tls = 'off'\n")), handover.Handover{})
	defer func() { d.site.close(); d.site.drain(t.Context()) }()
	if list := d.site.problems(); len(list) != 1 || list[0].Code != "site-not-served" || list[0].Hint == "" {
		t.Errorf("got %v", list)
	}
	_ = taken.Close()
	if list := d.site.problems(); len(list) != 0 {
		t.Errorf("got %v", list)
	}
	wantAnswer(t, taken.Addr().String(), "site")
}

// systemd opened nothing, as when another program has the port, and site.listen is not set.
func TestSiteThatIsConfiguredAndHasNoSocketIsAProblem(t *testing.T) {
	const hosts = "[registry.'docker.io']\nhosts = ['" + siteName + "']\n"
	for text, want := range map[string]int{
		"":                                   0,
		hosts:                                0, // as for callers of this host by that name
		"[site]\nacme_accept_terms = true\n": 0,
		hosts + "[site]\nallow = ['10.0.0.0/8']\n":          0,
		hosts + "[site]\nacme_accept_terms = true\n":        1,
		hosts + "[site]\ntls = 'off'\n":                     1,
		hosts + "[site]\ncert = '/a.pem'\nkey = '/a.key'\n": 1,
	} {
		d := newDaemon(config.Source{}, io.Discard)
		d.work = t.Context()
		d.site.set(mustLoad(t, text), handover.Handover{})
		list := d.site.problems()
		if len(list) != want || want > 0 && (list[0].Code != "site-not-served" || list[0].Hint == "") || d.site.report() != nil {
			t.Errorf("%q: %v", text, list)
		}
		d.site.close()
		if list := d.site.problems(); len(list) != 0 {
			t.Errorf("%q: after the end: %v", text, list)
		}
	}
}

func TestCallersOfTheSiteAreMarked(t *testing.T) {
	own, at := freeAddr(t), freeAddr(t)
	marked := make(chan bool, 1)
	begin(t, writeConfig(t, siteConfig(own, at, "tls = 'off'\n")), func(w http.ResponseWriter, r *http.Request) { marked <- access.IsSite(r.Context()) })
	for addr, want := range map[string]bool{own: false, at: true} {
		_, _ = io.Copy(io.Discard, stream(t, addr))
		if got := <-marked; got != want {
			t.Errorf("%s: a caller of the site: %t", addr, got)
		}
	}
}

func TestSocketsOfSystemdsAreThoseOfTheirNames(t *testing.T) {
	handed := []string{"sidemirror.socket", "site", "LISTEN_FD_5"}
	var list []sdnotify.Socket
	for _, name := range handed {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		list = append(list, sdnotify.Socket{Name: name, TCPListener: l})
	}
	own, site := splitSockets(list)
	if len(own) != 2 || len(site) != 1 || site[0] != list[1].TCPListener {
		t.Errorf("%v, %v", own, site)
	}
}

func TestSocketsOfSystemdsServeTheSiteUntilItsSettingsChange(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cert, key, pool := siteFiles(t, t.TempDir(), siteName)
	text := "[registry.'docker.io']\nhosts = ['" + siteName + "']\n[site]\n"
	d := newDaemon(config.Source{}, io.Discard)
	d.work = t.Context()
	d.server = d.newServer()
	d.handler.swap(newGeneration(t.Context(), &fake{name: "site", closed: make(chan struct{})}))
	d.site.handedOver = []*net.TCPListener{l}
	d.site.set(mustLoad(t, text+"tls = 'off'\n"), handover.Handover{})
	defer func() { d.site.close(); d.site.drain(t.Context()) }()
	at := l.Addr().String()
	wantAnswer(t, at, "site")
	d.site.set(mustLoad(t, text+fmt.Sprintf("cert = %q\nkey = %q\n", cert, key)), handover.Handover{})
	waitFor(t, func() bool {
		resp, err := siteClient(t, at, pool).Get("https://" + siteName + "/")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == 200
	})
	if list := d.site.problems(); len(list) != 0 {
		t.Errorf("got %v", list)
	}
	if got := d.site.uses()[netip.MustParseAddrPort(at)]; got != (siteUse{tls: true}) {
		t.Errorf("%+v", got)
	}
	if again, err := net.Listen("tcp4", at); err == nil {
		_ = again.Close()
		t.Error("the socket of systemd's was closed")
	}
}
