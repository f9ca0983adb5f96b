package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/certtest"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// written writes a file and returns its path.
func written(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestARegistryIsReachedAsTheEnginesReachIt(t *testing.T) {
	t.Parallel()
	cert, key := certtest.New(t)
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(cert))
	ok := http.NotFoundHandler() // a 404 is the registry's own, and a 502 says that it is not reached
	servers := map[string]*httptest.Server{"tls": httptest.NewUnstartedServer(ok), "client": httptest.NewUnstartedServer(ok), "plain": httptest.NewUnstartedServer(ok)}
	for name, s := range servers {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		switch name {
		case "plain":
			s.Start()
		case "client":
			s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
			s.StartTLS()
		default:
			s.StartTLS()
		}
		t.Cleanup(s.Close)
	}
	authority := written(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: servers["tls"].Certificate().Raw})))
	pair := upstream.KeyPair{Cert: written(t, cert), Key: written(t, key)}
	for name, test := range map[string]struct {
		server   string
		adopted  Adopted
		explicit bool
		want     int
	}{
		"nothing adopted":                  {"tls", Adopted{}, false, http.StatusBadGateway},
		"a CA":                             {"tls", Adopted{Adopted: upstream.Adopted{CA: []string{authority}}}, false, http.StatusNotFound},
		"a CA among several":               {"tls", Adopted{Adopted: upstream.Adopted{CA: []string{written(t, cert), authority}}}, false, http.StatusNotFound},
		"another CA":                       {"tls", Adopted{Adopted: upstream.Adopted{CA: []string{written(t, cert)}}}, false, http.StatusBadGateway},
		"the configuration is stronger":    {"tls", Adopted{Adopted: upstream.Adopted{CA: []string{authority}}}, true, http.StatusBadGateway},
		"not verified":                     {"tls", Adopted{Adopted: upstream.Adopted{SkipVerify: true}}, false, http.StatusNotFound},
		"a CA and no client certificate":   {"client", Adopted{Adopted: upstream.Adopted{CA: []string{authority}}}, false, http.StatusBadGateway},
		"a CA and a client certificate":    {"client", Adopted{Adopted: upstream.Adopted{CA: []string{authority}, Clients: []upstream.KeyPair{pair}}}, false, http.StatusNotFound},
		"plain HTTP":                       {"plain", Adopted{PlainHTTP: true}, false, http.StatusNotFound},
		"plain HTTP that is not adopted":   {"plain", Adopted{}, false, http.StatusBadGateway},
		"a file that is missing":           {"tls", Adopted{Adopted: upstream.Adopted{CA: []string{"/missing.pem"}}}, false, http.StatusBadGateway},
		"a file that is no PEM":            {"tls", Adopted{Adopted: upstream.Adopted{CA: []string{written(t, "x")}}}, false, http.StatusBadGateway},
		"TLS where plain HTTP is the rule": {"tls", Adopted{PlainHTTP: true}, false, http.StatusBadGateway},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := servers[test.server].Listener.Addr().String()
			registry := config.NewRegistry(host)
			registry.Explicit = test.explicit
			g := newRig(t, func(c *Config) {
				c.Registries = append(c.Registries, registry)
				c.Adopted = map[string]Adopted{host: test.adopted}
			}, func(http.ResponseWriter, *http.Request) {})
			resp, err := g.client.Head(g.URL + "/v2/a/manifests/v1?ns=" + url.QueryEscape(host))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != test.want {
				t.Errorf("got %d, want %d", resp.StatusCode, test.want)
			}
		})
	}
}

// A mirror of a registry is another host, for which the engines' settings of the registry are not.
func TestAMirrorIsNotReachedWithTheRegistrysAdoptedSettings(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	mirror, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	r := &routes{config: Config{Adopted: map[string]Adopted{"r.example": {Adopted: upstream.Adopted{SkipVerify: true}}}}}
	registry := config.NewRegistry("r.example")
	if got := r.adopted(registry); !got.SkipVerify {
		t.Fatal("the registry itself is not reached as the engines reach it")
	}
	registry.Upstreams, registry.Explicit = []config.Upstream{config.NewUpstream(mirror)}, true // as the loader says of a table with upstreams
	if got := r.adopted(registry); got.SkipVerify {
		t.Error("a mirror is not verified")
	}
}
