package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sidemirror/sidemirror/test/process"
)

// startTokenServer runs docker/distribution's token server with one user, and
// leaves the certificate by which the registry knows its tokens in token.pem.
func (r *Registry) startTokenServer(t testing.TB, folder string, refuseForms bool) {
	t.Helper()
	r.User, r.Password = "alice", rand.Text()
	hash, err := bcrypt.GenerateFromPassword([]byte(r.Password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, "htpasswd"), fmt.Appendf(nil, "%s:%s\n", r.User, hash))
	// libtrust reads no PKCS#8.
	writePEM(t, filepath.Join(folder, "token.key"), "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	certificate := template509("sidemirror-test")
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(folder, "token.pem"), "CERTIFICATE", der)

	// crane takes a realm on another port of localhost, but not of 127.0.0.1.
	address := fmt.Sprintf("localhost:%d", process.FreePort(t))
	r.Realm = r.URL.Scheme + "://" + address
	if refuseForms {
		front := r.refuseForms(t, folder, r.Realm)
		defer func() { r.Realm = front }()
	}
	line := []string{"-addr", address, "-realm", "sidemirror-test",
		"-issuer", "sidemirror-test", "-key", filepath.Join(folder, "token.key"),
		"-passwd", filepath.Join(folder, "htpasswd")}
	if r.CA != "" {
		// Clients take no realm without TLS of a registry with it.
		line = append(line, "-tlscert", filepath.Join(folder, "tls.pem"), "-tlskey", filepath.Join(folder, "tls.key"))
	}
	cmd := exec.Command(process.Path(t, "token-server"), line...)
	process.Start(t, "token-server", cmd, func(string) error {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// refuseForms serves what a token server serves, except POST, and returns the origin.
func (r *Registry) refuseForms(t testing.TB, folder, realm string) string {
	t.Helper()
	origin, err := url.Parse(realm)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(origin)
	proxy.Transport = r.client.Transport
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if request.Method == http.MethodPost {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		proxy.ServeHTTP(w, request)
	}))
	if r.CA == "" {
		front.Start()
	} else {
		own, err := tls.LoadX509KeyPair(filepath.Join(folder, "tls.pem"), filepath.Join(folder, "tls.key"))
		if err != nil {
			t.Fatal(err)
		}
		front.TLS = &tls.Config{Certificates: []tls.Certificate{own}}
		front.StartTLS()
	}
	t.Cleanup(front.Close)
	_, port, err := net.SplitHostPort(front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return origin.Scheme + "://localhost:" + port
}

// issue makes an authority and a certificate for names, leaves ca.pem, tls.pem
// and tls.key in the folder, and returns a transport that trusts the authority and shows the
// certificate.
func issue(t testing.TB, folder string, names []string) http.RoundTripper {
	t.Helper()
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := template509("sidemirror test authority")
	authority.IsCA, authority.KeyUsage = true, x509.KeyUsageCertSign
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := template509(names[0])
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, authority, key.Public(), authorityKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(folder, "ca.pem"), "CERTIFICATE", authorityDER)
	writePEM(t, filepath.Join(folder, "tls.pem"), "CERTIFICATE", leafDER)
	writePEM(t, filepath.Join(folder, "tls.key"), "PRIVATE KEY", keyDER)

	parsed, err := x509.ParseCertificate(authorityDER)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	own := tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: key}
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}}, ForceAttemptHTTP2: true}
}

// Certificate issues a certificate for names. It returns the paths of the PEM authority, of the
// certificate and of its key.
func Certificate(t testing.TB, names ...string) (ca, certificate, key string) {
	t.Helper()
	folder := t.TempDir()
	issue(t, folder, names)
	return filepath.Join(folder, "ca.pem"), filepath.Join(folder, "tls.pem"), filepath.Join(folder, "tls.key")
}

func template509(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true,
	}
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	write(t, path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
