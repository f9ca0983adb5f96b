package credentials

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const acrHost = "corp.azurecr.io"

// azure is a stand-in for Azure's token server and for a registry's, at their own names: the helper
// reaches both by TLS through a proxy on loopback.
type azure struct {
	*httptest.Server
	proxy *httptest.Server
	env   []string
}

func newAzure(t *testing.T, secret string) *azure {
	t.Helper()
	a := &azure{}
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = r.ParseForm()
		switch {
		case r.Host == "login.microsoftonline.com" && r.Form.Get("client_secret") == secret:
			fmt.Fprintf(w, `{"access_token":"aad-token","expires_in":"3600","expires_on":"%d","not_before":"0","resource":"r","token_type":"Bearer"}`, time.Now().Add(time.Hour).Unix())
		case r.Host == acrHost && r.URL.Path == "/oauth2/exchange" && r.Form.Get("access_token") == "aad-token":
			fmt.Fprintf(w, `{"refresh_token":%q}`, canary)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	certificate := certificateFor(t, "login.microsoftonline.com", acrHost)
	a.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	a.StartTLS()
	t.Cleanup(a.Close)
	a.proxy = httptest.NewServer(http.HandlerFunc(a.connect))
	t.Cleanup(a.proxy.Close)
	ca := write(t, filepath.Join(t.TempDir(), "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})), 0o600)
	a.env = []string{
		"HTTPS_PROXY=" + a.proxy.URL, "SSL_CERT_FILE=" + ca,
		"AZURE_TENANT_ID=tenant", "AZURE_CLIENT_ID=client", "AZURE_CLIENT_SECRET=" + secret,
	}
	return a
}

// certificateFor returns a certificate for names that has signed itself.
func certificateFor(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// connect is CONNECT to any host, which leads to the stand-in.
func (a *azure) connect(w http.ResponseWriter, r *http.Request) {
	to, err := net.Dial("tcp", a.Listener.Addr().String())
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer to.Close()
	w.WriteHeader(http.StatusOK)
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	go func() { _, _ = io.Copy(to, buffered); _ = to.(*net.TCPConn).CloseWrite() }()
	_, _ = io.Copy(from, to)
}

func TestAzuresHelperGetsARefreshTokenFromTheRegistry(t *testing.T) {
	cloud := newAzure(t, "right")
	h := real(t, "acr-env", cloud.env...)
	c, err := h.Get(t.Context(), "acr-env", acrHost)
	if err != nil || c.IdentityToken.Reveal() != canary || c.Username != "" || !c.Password.IsZero() {
		t.Fatalf("%q, %v, %v", c.Username, err, h.Fault())
	}
	if h.For("acr-env", "registry.example") {
		t.Error("a registry of others may have Azure's token")
	}
}

// Its errors come on standard output, and count as a failure.
func TestAzuresHelperWithAWrongSecretIsAFailure(t *testing.T) {
	cloud := newAzure(t, "right")
	env := append(cloud.env[:len(cloud.env)-1:len(cloud.env)-1], "AZURE_CLIENT_SECRET="+canary)
	h := real(t, "acr-env", env...)
	c, err := h.Get(t.Context(), "acr-env", acrHost)
	if err == nil || !c.IsZero() || strings.Contains(err.Error(), canary) {
		t.Errorf("got %q, %v", c.Username, err)
	}
}
