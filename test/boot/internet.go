package boot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/registry"
)

// outside is the address in a machine's network at which the internet is.
const outside = "192.0.2.1"

// The hosts of the registries that tests ask for. sidemirror serves both by default.
const (
	hub  = "registry-1.docker.io"
	ghcr = "ghcr.io"
	ecr  = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
)

// names are all hosts that the internet has. The last ones are the documentation's: mirrors, which
// have what Docker Hub and ghcr.io have, a company's registry, and one of Amazon's.
var names = []string{
	hub, "auth.docker.io", ghcr, "quay.io", "registry.k8s.io", "docker.example.com", "ghcr.example.com",
	"hub-mirror.corp.example", "harbor.corp.example", "registry.corp.example", "sso.corp.example", ecr,
}

// ports are those that every host of the internet has open.
var ports = []string{"443", "5000"}

// internet is what a machine finds there: registries, at their own names and with TLS. Behind all of
// them are a private docker-registry with its token server, for what is below alice/, and an open
// one for all else.
type internet struct {
	private, public *registry.Registry

	mu     sync.Mutex
	seen   []visit
	rate   int  // bytes a second that a layer is sent with, 0 for all at once
	slowly int  // layers that are being sent so
	skewed bool // clocks are wrong by a day
	status int  // of each response, if not 0

	troubled trouble         // that sidemirror has with it
	broken   map[string]bool // paths of layers that were broken off once
}

// visit is a request for a manifest or a blob, as the registries' front saw it.
type visit struct {
	host, path, agent string
	status            int
}

// connect connects a machine that is off to an internet, whose certificate it trusts.
func connect(t testing.TB, m *machine) *internet {
	t.Helper()
	n := &internet{
		private: registry.Start(t, registry.Options{Private: true}),
		public:  registry.Start(t, registry.Options{}),
		broken:  make(map[string]bool),
	}
	m.run("ip address add " + outside + "/32 dev lo")
	certificate, ca := certify(t)
	server := &http.Server{
		Handler: n, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	}
	var served sync.WaitGroup
	for _, port := range ports {
		listener, err := listenIn(m.holder, net.JoinHostPort(outside, port))
		if err != nil {
			t.Fatal(err)
		}
		served.Go(func() {
			_ = server.ServeTLS(listener, "", "") // until it is closed
		})
	}
	t.Cleanup(func() {
		_ = server.Close()
		served.Wait()
	})
	m.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"+outside+" "+strings.Join(names, " ")+"\n", 0o644)
	bundle, err := os.ReadFile(m.path("/etc/ssl/certs/ca-certificates.crt"))
	if err != nil {
		t.Fatal(err)
	}
	m.write("/etc/ssl/certs/ca-certificates.crt", string(bundle)+ca, 0o644)
	return n
}

// front is that of both registries and of their token server.
func (n *internet) front() *registry.Front {
	return &registry.Front{Private: n.private, Public: n.public, Note: n.note, Realm: func(host string) string {
		if host == hub {
			return "https://auth.docker.io"
		}
		return "https://" + host
	}}
}

// note records a visit, and slows the response down if that is wanted.
func (n *internet) note(r *http.Request, resp *http.Response) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.skewed {
		resp.Header.Set("Date", time.Now().Add(-24*time.Hour).UTC().Format(http.TimeFormat))
	}
	blob := strings.Contains(r.URL.Path, "/blobs/")
	// Small layers are sent at once: tests that count layers mean the large ones.
	large := blob && r.Method == http.MethodGet && resp.ContentLength > int64(n.rate)
	if blob || strings.Contains(r.URL.Path, "/manifests/") {
		n.seen = append(n.seen, visit{r.Host, r.URL.Path, r.UserAgent(), resp.StatusCode})
	}
	if blob && n.troubled == cutTrouble && strings.HasPrefix(r.UserAgent(), "sidemirror/") && r.Method == http.MethodGet && !n.broken[r.URL.Path] {
		n.broken[r.URL.Path] = true
		resp.Body = &brokenBody{resp.Body, resp.ContentLength / 2}
	}
	if large && n.rate != 0 {
		n.slowly++
		resp.Body = &slowBody{ReadCloser: resp.Body, rate: n.rate, done: sync.OnceFunc(func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.slowly--
		})}
	}
}

// sending counts the layers that are being sent slowly.
func (n *internet) sending() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.slowly
}

// slow limits each layer to so many bytes a second; 0 means no limit.
func (n *internet) slow(rate int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rate = rate
}

// pretend makes the clocks of all hosts wrong by a day, or all hosts respond with a status, if it is
// not 0.
func (n *internet) pretend(skewed bool, status int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.skewed, n.status = skewed, status
}

// visits counts the 200 responses for what is in a repository: those to sidemirror, and those to
// other clients.
func (n *internet) visits(host, repository string) (ours, direct int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, v := range n.seen {
		if v.host != host || v.status/100 != 2 || !strings.HasPrefix(v.path, "/v2/"+repository+"/") {
			continue
		}
		if strings.HasPrefix(v.agent, "sidemirror/") {
			ours++
		} else {
			direct++
		}
	}
	return ours, direct
}

// slowBody is read with so many bytes a second, in steps of a twentieth.
type slowBody struct {
	io.ReadCloser
	rate int
	done func()
}

func (b *slowBody) Read(p []byte) (int, error) {
	time.Sleep(time.Second / 20)
	return b.ReadCloser.Read(p[:min(len(p), b.rate/20)])
}

func (b *slowBody) Close() error {
	b.done()
	return b.ReadCloser.Close()
}

// certify makes a certificate for the internet's names, which it signs itself, and its PEM.
func certify(t testing.TB) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "sidemirror boot test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: names,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(ca)
}

// shape is that of an image whose largest layer has so many bytes.
func shape(size int) registry.Shape { return registry.Shape{Size: size} }
