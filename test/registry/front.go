package registry

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Front is the handler of a registry that has private and public repositories, as Docker Hub has: those
// below alice/ are Private's, all others Public's. It shows the token server as a path of its own.
type Front struct {
	Private, Public *Registry

	// Realm, if not nil, returns the origin that clients get for the token server when they have asked
	// for a host. The default is the host itself.
	Realm func(host string) string

	// Note, if not nil, sees each response of a registry before the client does.
	Note func(*http.Request, *http.Response)
}

// ServeHTTP passes a request on to the registry or the token server that it is for.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := strings.HasPrefix(r.URL.Path, "/token")
	if token && r.Header.Get("Authorization") == "" {
		// As at Docker Hub, every client gets a token, which a private repository refuses.
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"token":"anonymous","expires_in":300}`)
		return
	}
	behind := f.Public.URL.Host
	switch {
	case token:
		behind = strings.TrimPrefix(f.Private.Realm, "http://")
	case r.URL.Path == "/v2/", strings.HasPrefix(r.URL.Path, "/v2/alice/"):
		behind = f.Private.URL.Host
	}
	realm := "https://" + r.Host
	if f.Realm != nil {
		realm = f.Realm(r.Host)
	}
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(&url.URL{Scheme: "http", Host: behind}) },
		ModifyResponse: func(resp *http.Response) error {
			// The token server knows only its own address.
			if challenge := resp.Header.Get("Www-Authenticate"); challenge != "" {
				resp.Header.Set("Www-Authenticate", strings.ReplaceAll(challenge, f.Private.Realm, realm))
			}
			if f.Note != nil {
				f.Note(r, resp)
			}
			return nil
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	proxy.ServeHTTP(w, r)
}

// StartFront serves a front at an address, with a certificate for some names, until the end of the test.
// It returns the path of the PEM authority of that certificate.
func StartFront(t testing.TB, f *Front, address string, names []string) (ca string) {
	t.Helper()
	folder := t.TempDir()
	issue(t, folder, names)
	certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "tls.pem"), filepath.Join(folder, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: f, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	}
	var served sync.WaitGroup
	served.Go(func() { _ = server.ServeTLS(listener, "", "") }) // until it is closed
	t.Cleanup(func() {
		_ = server.Close()
		served.Wait()
	})
	return filepath.Join(folder, "ca.pem")
}
