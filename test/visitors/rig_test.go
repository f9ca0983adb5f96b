// Package visitors tests who may ask at the site, the mirror on a domain of its own, and how much: from
// other hosts, over real bridges and TLS, with what attackers try and what real engines do.
package visitors

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/network"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestMain(m *testing.M) {
	if err := network.Isolate(func() error { return errors.Join(engine.GetAll(), harness.Build()) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	harness.Main(m)
}

const (
	gateway = "172.30.9.1" // this host's address, to which the site's names lead
	prefix  = gateway + "/24"

	siteName = "docker.example.com" // stands for docker.io
	hostOnly = "corp.example"       // a registry that the site does not serve

	public, private = "library/app", "library/secret"

	// The login of the daemon at the registry, and a visitor's at the site.
	robot, robotPassword = "robot", "canary-of-the-robot-51c0"
	ann, annPassword     = "ann", "canary-of-ann-7f12"
)

var image = quirky.NewImage(true, "visitors", 100<<10, 100)

// rig is a host with a site that has a certificate, a registry, and other hosts.
type rig struct {
	*harness.Sidemirror
	t      *testing.T
	bridge *network.Bridge
	guest  *network.Guest // in a private network of this host
	hub    *quirky.Server
	ca     string // the file of the certificate
	key    string // and of its key
	pool   *x509.CertPool
	users  string // the file of users
}

// start starts sidemirror with these lines in [site], in which USERS is the file of users.
func start(t *testing.T, site string) *rig {
	t.Helper()
	r := &rig{t: t, bridge: network.NewBridge(t, "br-visitors", prefix), pool: x509.NewCertPool()}
	r.guest = r.bridge.NewGuest("172.30.9.2")
	r.hub = quirky.New(t, quirky.Options{Auth: quirky.Auth{
		Scheme: "Bearer", Users: map[string]string{robot: robotPassword}, Private: []string{private},
	}})
	r.hub.Add(public, "v1", image)
	r.hub.Add(private, "v1", image)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.ca = filepath.Join(dir, "site.pem")
	r.users = filepath.Join(dir, "site.htpasswd")
	r.key = r.certify(filepath.Join(dir, "site.key"))
	listen := fmt.Sprintf("listen = [%q]\n", gateway+":443")
	if strings.Contains(site, "listen =") {
		listen = ""
	}
	certificate := fmt.Sprintf("cert = %q\nkey = %q\n", r.ca, r.key)
	if strings.Contains(site, "tls =") {
		certificate = ""
	}
	r.setUser(annPassword)
	r.Sidemirror = harness.Start(t, harness.Options{
		Registries: []harness.Registry{
			{Name: "docker.io", Upstreams: []string{r.hub.URL()}, Hosts: []string{siteName}, Realms: []string{r.hub.TokenOrigin()}},
			{Name: hostOnly, Upstreams: []string{r.hub.URL()}},
		},
		Logins:  map[string]string{"docker.io": robot + ":" + robotPassword},
		Secrets: []string{annPassword, "canary-guess"},
		Extra:   "\n[site]\n" + listen + certificate + strings.ReplaceAll(site, "USERS", r.users),
	})
	if certificate != "" {
		r.Eventually("the site has its certificate", r.handshakes)
	}
	return r
}

// handshakes reports whether the guest comes to a connection with the site.
func (r *rig) handshakes() bool {
	conn, err := r.guest.Dial(r.t.Context(), "tcp4", gateway+":443")
	if err != nil {
		return false
	}
	defer conn.Close()
	return tls.Client(conn, &tls.Config{RootCAs: r.pool, ServerName: siteName}).HandshakeContext(r.t.Context()) == nil
}

// certify writes a certificate for the site's name and its key.
func (r *rig) certify(keyFile string) string {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: siteName}, DNSNames: []string{siteName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		r.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		r.t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	r.pool.AppendCertsFromPEM(certPEM)
	for name, data := range map[string][]byte{r.ca: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	return keyFile
}

// setUser writes the file of users.
func (r *rig) setUser(password string) {
	r.t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.users, []byte(ann+":"+string(hash)+"\n"), 0o640); err != nil {
		r.t.Fatal(err)
	}
}

// outsider returns a host whose address is in no private network of this host.
func (r *rig) outsider(address, prefix string) *network.Guest {
	r.t.Helper()
	r.bridge.Route(prefix)
	return r.bridge.NewGuest(address)
}

// transport returns a transport for the site's name whose connections come from a host.
func (r *rig) transport(g *network.Guest) *http.Transport {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return g.Dial(ctx, "tcp4", gateway+":443")
		},
		TLSClientConfig: &tls.Config{RootCAs: r.pool, ServerName: siteName}, ForceAttemptHTTP2: true, DisableCompression: true,
	}
	r.t.Cleanup(t.CloseIdleConnections)
	return t
}

// client returns a client at another host, with a connection for each request.
func (r *rig) client(g *network.Guest) *http.Client {
	t := r.transport(g)
	t.DisableKeepAlives = true
	return &http.Client{
		Transport: t, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask asks for a path of the site. The header has pairs of names and values.
func (r *rig) ask(g *network.Guest, method, path string, pairs ...string) harness.Answer {
	header := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		header.Add(pairs[i], pairs[i+1])
	}
	return harness.Fetch(r.client(g), method, "https://"+siteName+path, header)
}

// get asks for a path as the guest does.
func (r *rig) get(path string, pairs ...string) harness.Answer {
	return r.ask(r.guest, http.MethodGet, path, pairs...)
}

// engineIsServed checks that an engine of this host gets an image.
func (r *rig) engineIsServed(when string) {
	r.t.Helper()
	got := harness.Fetch(harness.Client(r.t), http.MethodGet, r.URL()+"/v2/"+private+"/manifests/v1?ns=docker.io", nil)
	if got.Status != http.StatusOK || !bytes.Equal(got.Body, image.Bytes) {
		r.t.Errorf("%s, an engine of this host gets %d: %s", when, got.Status, got.Says())
	}
}

func basic(name, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}

const appManifest = "/v2/" + public + "/manifests/v1"
