package site

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/process"
)

// pebble is an ACME server, for which every name leads to the gateway.
type pebble struct {
	t          *testing.T
	ca         string // the file with the certificate of its own API
	port, mine int
	folder     string
	daemon     *process.Daemon
	client     *http.Client
}

// startPebble starts an ACME server that issues certificates for a time, and looks for challenges at
// port 443 or, with noALPN, at port 80 alone.
func startPebble(t *testing.T, validity time.Duration, noALPN bool) *pebble {
	t.Helper()
	p := &pebble{t: t, port: process.FreePort(t), mine: process.FreePort(t), folder: t.TempDir()}
	cert, key := p.certificate()
	names := process.FreePort(t)
	process.Start(t, "pebble-challtestsrv", exec.Command(process.Path(t, "pebble-challtestsrv"),
		"-defaultIPv4", gateway, "-defaultIPv6", "", "-dns01", fmt.Sprintf("127.0.0.1:%d", names), "-http01", "", "-https01", "",
		"-tlsalpn01", "", "-management", fmt.Sprintf("127.0.0.1:%d", process.FreePort(t))), nothing)
	tlsPort := 443
	if noALPN {
		tlsPort = process.FreePort(t)
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", p.port), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", p.mine),
		"certificate": cert, "privateKey": key, "httpPort": 80, "tlsPort": tlsPort, "certificateValidityPeriod": int(validity.Seconds()),
	}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(p.folder, "pebble.json"), config)
	write(t, filepath.Join(p.folder, "dns"), []byte(fmt.Sprintf("127.0.0.1:%d", names)))
	p.start()
	return p
}

func nothing(string) error { return nil }

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// start starts the server, again after a stop. It has another root certificate then.
func (p *pebble) start() {
	p.t.Helper()
	dns, err := os.ReadFile(filepath.Join(p.folder, "dns"))
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(process.Path(p.t, "pebble"), "-config", filepath.Join(p.folder, "pebble.json"), "-dnsserver", string(dns))
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	p.daemon = process.Start(p.t, "pebble", cmd, func(string) error {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.mine))
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// directory is the URL of the server's directory.
func (p *pebble) directory() string { return fmt.Sprintf("https://127.0.0.1:%d/dir", p.port) }

// certificate writes the certificate and key of the server's API.
func (p *pebble) certificate() (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		p.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		p.t.Fatal(err)
	}
	p.ca, key = filepath.Join(p.folder, "api.pem"), filepath.Join(p.folder, "api.key")
	write(p.t, p.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(p.t, key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}
	p.client = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	return p.ca, key
}

// root returns the certificate of the authority that issues now, as PEM.
func (p *pebble) root() []byte {
	p.t.Helper()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/roots/0", p.mine), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := p.client.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return data
}
