// Package quirky is a registry, its token server and its blob store, in the
// process of the test, whose options imitate what public registries do and what
// goes wrong with them. It keeps every request, so that a test can say what was
// sent where.
package quirky

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
	"net/http/httptest"
	"net/url"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// Server is a running upstream. Its methods may be called from any goroutine.
type Server struct {
	registry, token, blobs *httptest.Server

	closing chan struct{} // ends what stalls
	ca      []byte

	mu         sync.Mutex
	options    Options
	repos      map[string]*repository
	tokens     map[string]*token
	signatures map[string]*signature
	requests   []*Request
}

type repository struct {
	tags      map[string]digest.Digest
	manifests map[digest.Digest]Image
	blobs     map[digest.Digest]Blob
}

// New starts an upstream. It is stopped when the test ends.
func New(tb testing.TB, o Options) *Server {
	tb.Helper()
	s := &Server{
		options: o, closing: make(chan struct{}),
		repos: map[string]*repository{}, tokens: map[string]*token{}, signatures: map[string]*signature{},
	}
	address := o.Address
	if address == "" {
		address = "127.0.0.1:0"
	}
	var certificate *tls.Certificate
	if o.TLS {
		certificate = s.makeCertificate(tb)
	}
	s.registry = s.listen(tb, address, certificate, Registry, s.serveRegistry)
	s.token = s.listen(tb, "127.0.0.1:0", certificate, Token, s.serveToken)
	s.blobs = s.listen(tb, "127.0.0.2:0", certificate, BlobStore, s.serveBlobStore)
	tb.Cleanup(func() {
		close(s.closing)
		s.registry.Close()
		s.token.Close()
		s.blobs.Close()
	})
	return s
}

// URL is the registry's, Host its host:port.
func (s *Server) URL() string  { return s.registry.URL }
func (s *Server) Host() string { return s.registry.Listener.Addr().String() }

// TokenOrigin is the scheme, host and port of the token server, which is the
// registry's but with Auth.ForeignHost.
func (s *Server) TokenOrigin() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokenOrigin()
}

// BlobOrigin is the blob store's scheme, host and port.
func (s *Server) BlobOrigin() string { return s.blobs.URL }

// CA is the PEM certificate that vouches for all of them, with Options.TLS.
func (s *Server) CA() []byte { return s.ca }

// Set changes options while it runs, all but Address and TLS.
func (s *Server) Set(change func(*Options)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.options)
}

// Add puts image, and all that it names, into a repository, under a tag if tag
// is not empty.
func (s *Server) Add(name, tag string, image Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[name]
	if r == nil {
		r = &repository{map[string]digest.Digest{}, map[digest.Digest]Image{}, map[digest.Digest]Blob{}}
		s.repos[name] = r
	}
	r.add(image)
	if tag != "" {
		r.tags[tag] = image.Digest
	}
}

func (r *repository) add(image Image) {
	r.manifests[image.Digest] = image
	for _, b := range image.Blobs {
		r.blobs[b.Digest] = b
	}
	for _, i := range image.Images {
		r.add(i)
	}
}

func (r *repository) sortedTags() []string {
	tags := make([]string, 0, len(r.tags))
	for t := range r.tags {
		tags = append(tags, t)
	}
	sort.Strings(tags)
	return tags
}

func (s *Server) now() Options {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.options
}

func (s *Server) listen(tb testing.TB, address string, c *tls.Certificate, part Part, handler http.HandlerFunc) *httptest.Server {
	tb.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	h := httptest.NewUnstartedServer(s.record(part, handler))
	h.Listener.Close()
	h.Listener = l
	// Connections that tests cut on purpose are not news.
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	if c == nil {
		h.Start()
		return h
	}
	h.EnableHTTP2 = true
	h.TLS = &tls.Config{Certificates: []tls.Certificate{*c}}
	h.StartTLS()
	return h
}

// makeCertificate makes one for every address that we listen on; httptest's own
// does not know 127.0.0.2.
func (s *Server) makeCertificate(tb testing.TB) *tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "quirky"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "registry.test", "store.test"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	s.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// origin is the scheme, host and port of a URL.
func origin(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
