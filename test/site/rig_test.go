// Package site tests the mirror on a domain of its own: its certificates with a real ACME server, real
// engines on another host, and what stands in front of it.
package site

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

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
	gateway = "172.30.8.1" // this host's address, to which the names lead
	prefix  = gateway + "/24"

	hubName  = "docker.example.com" // stands for docker.io
	ghcrName = "ghcr.example.com"

	user, password = "alice", "canary-of-alice-51f0"
)

var image = quirky.NewImage(false, "site", 100<<10, 100)

// rig is a host with a site, another host, two registries and sidemirror.
type rig struct {
	*harness.Sidemirror
	t         *testing.T
	guest     *network.Guest // the other host
	hub, ghcr *quirky.Server
	options   harness.Options
}

// start starts sidemirror with these lines in [site].
func start(t *testing.T, site string) *rig {
	t.Helper()
	r := &rig{t: t}
	bridge := network.NewBridge(t, "br-site", prefix)
	r.guest = bridge.NewGuest("172.30.8.2")
	login := map[string]string{user: password}
	hub := quirky.Like("docker.io")
	hub.Auth.Users, hub.Auth.Private = login, []string{"library/private"}
	ghcr := quirky.Like("ghcr.io")
	ghcr.Auth.Users, ghcr.Auth.Private = login, []string{""}
	r.hub, r.ghcr = quirky.New(t, hub), quirky.New(t, ghcr)
	r.hub.Add("library/alpine", "latest", image)
	r.hub.Add("library/private", "latest", image)
	r.ghcr.Add("o/i", "latest", image)
	r.options = harness.Options{
		Registries: []harness.Registry{
			{Name: "docker.io", Upstreams: []string{r.hub.URL()}, Hosts: []string{hubName}, Realms: []string{r.hub.TokenOrigin()}},
			{Name: "ghcr.io", Upstreams: []string{r.ghcr.URL()}, Hosts: []string{ghcrName}},
			{Name: "corp.example", Upstreams: []string{r.ghcr.URL()}}, // for this host alone
		},
		// The state is published there, with the problems.
		Env:   []string{"RUNTIME_DIRECTORY=" + t.TempDir()},
		Extra: "\n[site]\nallow = [\"172.30.8.0/24\", \"127.0.0.0/8\"]\n" + site,
	}
	r.Sidemirror = harness.Start(t, r.options)
	return r
}

// visitor returns a client at the other host that trusts the authorities in roots. Every name leads to
// the gateway. It sends each request over a connection of its own.
func (r *rig) visitor(roots []byte) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, kind, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return r.guest.Dial(ctx, kind, net.JoinHostPort(gateway, port))
		},
		TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, DisableCompression: true, DisableKeepAlives: true,
	}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// certificate returns the certificate that the site shows for a name; nil if there is none. It is not
// verified.
func (r *rig) certificate(name string) *x509.Certificate {
	conn, err := r.guest.Dial(r.t.Context(), "tcp4", gateway+":443")
	if err != nil {
		return nil
	}
	defer conn.Close()
	c := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := c.HandshakeContext(r.t.Context()); err != nil {
		return nil
	}
	return c.ConnectionState().PeerCertificates[0]
}

// decode reads JSON.
func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}
