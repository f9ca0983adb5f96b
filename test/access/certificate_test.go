package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
)

// certified serves the image's manifest to clients with a certificate only, as a registry with
// mutual TLS does.
func certified(t *testing.T) (s *httptest.Server, ca, cert, key string) {
	t.Helper()
	s = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case len(r.TLS.PeerCertificates) == 0:
			w.WriteHeader(http.StatusForbidden)
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", image.MediaType)
			w.Header().Set("Docker-Content-Digest", image.Digest.String())
			_, _ = w.Write(image.Bytes)
		case strings.Contains(r.URL.Path, "/blobs/"):
			_, _ = w.Write(layer.Bytes)
		}
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	folder := t.TempDir()
	ca, cert, key = filepath.Join(folder, "ca.pem"), filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		ca:   {Type: "CERTIFICATE", Bytes: s.Certificate().Raw},
		cert: {Type: "CERTIFICATE", Bytes: der},
		key:  {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s, ca, cert, key
}

func TestAClientCertificateOpensNothingToUntrustedCallers(t *testing.T) {
	upstream, ca, cert, key := certified(t)
	name := strings.TrimPrefix(upstream.URL, "https://")
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: name, Upstreams: []string{upstream.URL}, CA: ca, Cert: cert, Key: key}},
	})
	other := untrusted(t)
	paths := []string{
		of(name, "manifests/v1"), of(name, "manifests/"+image.Digest.String()), of(name, "blobs/"+layer.Digest.String()),
	}
	// Before a trusted caller has asked, and after, when everything is stored.
	for range 2 {
		for _, p := range paths {
			for _, method := range []string{"HEAD", "GET"} {
				if a := s.DoWith(other, method, p, nil); a.Status < 400 {
					t.Errorf("an untrusted caller gets %d for %s %s", a.Status, method, p)
				}
			}
		}
		for _, p := range paths {
			s.Get(p, nil).Is(t, "a trusted caller: "+p, 200)
		}
	}
}

// A certificate of one registry says nothing to another host that mirrors it.
func TestAClientCertificateIsNotShownToAMirror(t *testing.T) {
	upstream, ca, cert, key := certified(t)
	shown := make(chan int, 10)
	mirror := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown <- len(r.TLS.PeerCertificates)
		w.WriteHeader(http.StatusNotFound)
	}))
	mirror.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: upstream.TLS.Certificates}
	mirror.StartTLS()
	defer mirror.Close()
	name := strings.TrimPrefix(upstream.URL, "https://")
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: name, Upstreams: []string{mirror.URL, upstream.URL}, CA: ca, Cert: cert, Key: key}},
	})
	s.Get(of(name, "manifests/v1"), nil).Whole(t, "the manifest", image.Bytes)
	s.Eventually("the mirror is asked", func() bool { return len(shown) > 0 })
	for range len(shown) {
		if n := <-shown; n != 0 {
			t.Error("the mirror saw the certificate")
		}
	}
}
