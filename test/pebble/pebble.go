// Package pebble runs an ACME server, Let's Encrypt's own one for tests.
package pebble

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/process"
)

// Options are what a server is started with.
type Options struct {
	// Gateway is the address to which all names lead.
	Gateway string

	// At is the address at which the server listens; "" is 127.0.0.1.
	At string

	// Validity is for how long certificates are valid.
	Validity time.Duration

	// NoALPN makes it find no challenge over TLS.
	NoALPN bool

	// Inside are the words before its command line, such as those that enter a network namespace, and
	// Dial connects there. If they are nil, it runs in the test's own.
	Inside []string
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
}

// Server is a running ACME server.
type Server struct {
	// CA is the file with the certificate of its own API.
	CA string

	t       testing.TB
	options Options
	folder  string
	api     int // port
	admin   int // port
	names   string
	daemon  *process.Daemon
	client  *http.Client
}

// Start starts a server, which ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.At == "" {
		o.At = "127.0.0.1"
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	s := &Server{t: t, options: o, folder: t.TempDir(), api: process.FreePort(t), admin: process.FreePort(t)}
	cert, key := s.certify()
	s.names = s.at(process.FreePort(t))
	process.Start(t, "pebble-challtestsrv", s.command("pebble-challtestsrv",
		"-defaultIPv4", o.Gateway, "-defaultIPv6", "", "-dns01", s.names, "-http01", "", "-https01", "", "-tlsalpn01", "",
		"-management", s.at(process.FreePort(t))), func(string) error { return nil })
	tlsPort := 443
	if o.NoALPN {
		tlsPort = process.FreePort(t)
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": s.at(s.api), "managementListenAddress": s.at(s.admin),
		"certificate": cert, "privateKey": key, "httpPort": 80, "tlsPort": tlsPort, "certificateValidityPeriod": int(o.Validity.Seconds()),
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.write("pebble.json", config)
	s.Run()
	return s
}

func (s *Server) at(port int) string { return net.JoinHostPort(s.options.At, strconv.Itoa(port)) }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	words := slices.Concat(s.options.Inside, []string{process.Path(s.t, name)}, args)
	return exec.Command(words[0], words[1:]...)
}

// write writes a file into the server's folder and returns its path.
func (s *Server) write(name string, data []byte) string {
	s.t.Helper()
	path := filepath.Join(s.folder, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// Run starts the server again after a Stop. It has another root certificate then.
func (s *Server) Run() {
	s.t.Helper()
	cmd := s.command("pebble", "-config", filepath.Join(s.folder, "pebble.json"), "-dnsserver", s.names)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	s.daemon = process.Start(s.t, "pebble", cmd, func(string) error {
		c, err := s.options.Dial(s.t.Context(), "tcp", s.at(s.admin))
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// Stop ends the server.
func (s *Server) Stop() { s.daemon.Stop() }

// Output returns what the server has logged.
func (s *Server) Output() string { return s.daemon.Output() }

// Directory is the URL of the server's directory.
func (s *Server) Directory() string { return "https://" + s.at(s.api) + "/dir" }

// certify writes the certificate and key of the server's API.
func (s *Server) certify() (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.ParseIP(s.options.At)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		s.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		s.t.Fatal(err)
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(encoded)
	transport := &http.Transport{DialContext: s.options.Dial, TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}
	s.client = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	s.CA = s.write("api.pem", encoded)
	return s.CA, s.write("api.key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

// Root returns the certificate of the authority that issues now, as PEM.
func (s *Server) Root() []byte {
	s.t.Helper()
	resp, err := s.client.Get("https://" + s.at(s.admin) + "/roots/0")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}
