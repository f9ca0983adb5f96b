package upstream

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	maxPEM    = 1 << 20 // bytes of a certificate or key file
	maxHeader = 64 << 10
)

// Via names this process in the Via header of requests to private upstreams, so that a
// request that comes back is recognised (RFC 9110, 7.6.3).
var Via = "1.1 sidemirror-" + processName()

func processName() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b) // never fails: crypto/rand
	return hex.EncodeToString(b)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func newTransport(c Config, tlsc *tls.Config, dial dialFunc) *http.Transport {
	t := &http.Transport{
		DialContext: dial,

		TLSClientConfig:     tlsc,
		TLSHandshakeTimeout: c.Registry.DialTimeout,
		ForceAttemptHTTP2:   true,
		// A dead connection is found before it costs a pull.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},

		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxHeader,
		ReadBufferSize:         64 << 10,
		// What is compressed is decoded in one place, see Upstream.decode.
		DisableCompression: true,
	}
	c.Forward.use(t, c.Registry.DialTimeout)
	return t
}

// newRequest returns a request with those of the headers that may go to any host.
func newRequest(ctx context.Context, method string, u *url.URL, from http.Header, userAgent string) *http.Request {
	h := http.Header{}
	for _, name := range []string{"Accept", "Range", "If-Range"} {
		if v := from.Values(name); len(v) > 0 {
			h[name] = v
		}
	}
	// Without this some servers compress what they send.
	h.Set("Accept-Encoding", "identity")
	if userAgent != "" {
		h.Set("User-Agent", userAgent)
	}
	return (&http.Request{Method: method, URL: u, Host: u.Host, Header: h}).WithContext(ctx)
}

func tlsConfig(roots *x509.CertPool, client []tls.Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: client}
}

// loadRoots returns the system's certificates and those of the files. Without a file it returns nil,
// which means the system's.
func loadRoots(files []string) (*x509.CertPool, error) {
	if len(files) == 0 {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, file := range files {
		pem, err := readPEM(file)
		if err != nil {
			return nil, fmt.Errorf("reading ca: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading ca: %s contains no PEM certificate", file)
		}
	}
	return pool, nil
}

func loadClients(files []KeyPair) ([]tls.Certificate, error) {
	var list []tls.Certificate
	for _, pair := range files {
		c, err := loadClient(pair.Cert, pair.Key)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

func loadClient(cert, key string) (tls.Certificate, error) {
	c, err := readPEM(cert)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading cert: %w", err)
	}
	k, err := readPEM(key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading key: %w", err)
	}
	pair, err := tls.X509KeyPair(c, k)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the client certificate %s and the key %s cannot be used: %w", cert, key, err)
	}
	return pair, nil
}

func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxPEM {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("longer than %d bytes", maxPEM)}
	}
	return b, nil
}

// reason returns in a few words why a connection failed.
func reason(err error) string {
	if e, ok := errors.AsType[*proxyError](err); ok {
		return e.Error()
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		if e.IsNotFound {
			return "there is no such host"
		}
		return "its name could not be looked up"
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "its certificate is not trusted: " + e.Err.Error()
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "it does not speak TLS: " + e.Msg
	}
	if e, ok := errors.AsType[*blockedError](err); ok {
		return e.Error()
	}
	for _, known := range []struct {
		errno syscall.Errno
		text  string
	}{
		{syscall.ECONNREFUSED, "connection refused"},
		{syscall.ECONNRESET, "connection reset"},
		{syscall.ENETUNREACH, "network unreachable"},
		{syscall.EHOSTUNREACH, "host unreachable"},
	} {
		if errors.Is(err, known.errno) {
			return known.text
		}
	}
	if strings.Contains(err.Error(), "tls:") {
		return "the TLS handshake failed"
	}
	return "the connection failed"
}

// drain reads the little that is left of a response, so that its connection can be used
// again, and closes it.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	_ = resp.Body.Close()
}
