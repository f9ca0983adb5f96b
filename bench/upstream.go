package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// upstream is a registry that serves images without asking who wants them, and counts. What it
// sends goes through its network.
type upstream struct {
	address string
	scheme  string   // "http" or "https"
	ca      string   // of https: the path of the authority to trust
	mirrors []string // URLs of what sidemirror asks before it
	store   string   // URL of the store that hosts in front of it share
	server  *http.Server
	done    chan struct{}

	network  network
	late     func(*http.Request) time.Duration // how long a response waits in addition; nil: not at all
	requests atomic.Int64                      // all, HEAD and /v2/ too
	sent     atomic.Int64                      // bytes of blobs

	mu        sync.Mutex
	blobs     map[string]*blob
	manifests map[string]*blob // by digest and by tag
}

// newUpstream listens on a free port and serves plain HTTP/1.1.
func newUpstream() (*upstream, error) { return listenUpstream("http", nil) }

// newSecureUpstream listens on a free port and serves HTTP/2 over TLS, or HTTP/1.1 if the client
// prefers that. It writes the authority of its certificate to a file in dir.
func newSecureUpstream(dir string) (*upstream, error) {
	certificate, authority, err := selfSigned()
	if err != nil {
		return nil, err
	}
	ca := filepath.Join(dir, "upstream-ca.pem")
	if err := os.WriteFile(ca, authority, 0o600); err != nil {
		return nil, err
	}
	u, err := listenUpstream("https", &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	if err == nil {
		u.ca = ca
	}
	return u, err
}

func listenUpstream(scheme string, secure *tls.Config) (*upstream, error) {
	//nolint:noctx // listening on loopback does not block
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &upstream{
		address:   l.Addr().String(),
		scheme:    scheme,
		done:      make(chan struct{}),
		blobs:     make(map[string]*blob),
		manifests: make(map[string]*blob),
	}
	u.server = &http.Server{Handler: u, ReadHeaderTimeout: time.Minute, TLSConfig: secure}
	distant := distantListener{Listener: l, network: &u.network}
	go func() {
		defer close(u.done)
		if secure != nil {
			_ = u.server.ServeTLS(distant, "", "") // ErrServerClosed
			return
		}
		_ = u.server.Serve(distant) // ErrServerClosed
	}()
	return u, nil
}

func (u *upstream) close() {
	_ = u.server.Close()
	<-u.done
}

func (u *upstream) add(images ...*image) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, i := range images {
		u.manifests[i.tag] = i.manifest
		u.manifests[i.manifest.digest] = i.manifest
		u.blobs[i.config.digest] = i.config
		for _, b := range i.layers {
			u.blobs[b.digest] = b
		}
	}
}

// reset makes the counters zero.
func (u *upstream) reset() {
	u.requests.Store(0)
	u.sent.Store(0)
	u.network.most.Store(u.network.open.Load())
}

// ServeHTTP implements [http.Handler].
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.requests.Add(1)
	time.Sleep(u.network.roundTrip())
	if u.late != nil {
		time.Sleep(u.late(r))
	}
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if r.URL.Path == "/v2/" {
		w.WriteHeader(http.StatusOK)
		return
	}
	what, mediaType, found := u.find(r)
	if !found {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Docker-Content-Digest", what.digest)
	w.Header().Set("Etag", strconv.Quote(what.digest))
	w.Header().Set("Content-Type", mediaType)
	content := counted{blobReader: what.reader(), sent: &u.sent}
	if mediaType == manifestType {
		content.sent = new(atomic.Int64)
	}
	http.ServeContent(w, r, "", time.Time{}, &content)
}

// find returns what r asks for, and its type.
func (u *upstream) find(r *http.Request) (what *blob, mediaType string, found bool) {
	rest, _ := strings.CutPrefix(r.URL.Path, "/v2/"+repository+"/")
	kind, name, _ := strings.Cut(rest, "/")
	u.mu.Lock()
	defer u.mu.Unlock()
	switch kind {
	case "manifests":
		what, found = u.manifests[name]
		return what, manifestType, found
	case "blobs":
		what, found = u.blobs[name]
		return what, "application/octet-stream", found
	}
	return nil, "", false
}

// counted counts what is read.
type counted struct {
	*blobReader

	sent *atomic.Int64
}

// Read implements [io.Reader].
func (c *counted) Read(to []byte) (int, error) {
	n, err := c.blobReader.Read(to)
	c.sent.Add(int64(n))
	return n, err
}

// selfSigned returns a certificate for 127.0.0.1 and its authority, which is the certificate itself,
// as PEM.
func selfSigned() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "sidemirror bench"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, authority, nil
}
