package certificate

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/crypto/acme"
)

const (
	// issueTimeout limits an attempt to get a certificate.
	issueTimeout = 2 * time.Minute

	// requestTimeout limits a request to the ACME server.
	requestTimeout = 30 * time.Second
)

// challenges are the ways to prove that a name leads here, in the order in which they are tried.
var challenges = []string{"tls-alpn-01", "http-01"}

// issue gets a certificate for a name from the ACME server, and stores it.
func (p *Provider) issue(ctx context.Context, s Settings, name string) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	client, err := newClient(s)
	if err != nil {
		return nil, err
	}
	defer client.HTTPClient.CloseIdleConnections()
	if err := register(ctx, client, s.ACME.Email); err != nil {
		return nil, fmt.Errorf("the ACME server at %s: %w", s.ACME.Directory, err)
	}
	var faults []error
	for _, kind := range challenges {
		if kind == "http-01" && !s.ACME.HTTP01 {
			continue
		}
		cert, err := p.order(ctx, client, s, name, kind)
		if err == nil {
			return cert, nil
		}
		faults = append(faults, fmt.Errorf("the ACME server at %s, with %s: %w", s.ACME.Directory, kind, err))
		if _, failed := errors.AsType[*acme.AuthorizationError](err); !failed {
			break // another way to prove the same does not help
		}
	}
	return nil, errors.Join(faults...)
}

// newClient returns a client for the ACME server, with the key of the account.
func newClient(s Settings) (*acme.Client, error) {
	key, err := accountKey(s.Folder)
	if err != nil {
		return nil, fmt.Errorf("the key of the account at the ACME server: %w", err)
	}
	transport := &http.Transport{
		Proxy:                 s.ACME.Proxy,
		DialContext:           (&net.Dialer{Timeout: requestTimeout}).DialContext,
		TLSHandshakeTimeout:   requestTimeout,
		ResponseHeaderTimeout: requestTimeout,
		ForceAttemptHTTP2:     true,
	}
	if s.ACME.CA != "" {
		pool, err := readCA(s.ACME.CA)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return &acme.Client{
		Key: key, DirectoryURL: s.ACME.Directory, UserAgent: "sidemirror",
		HTTPClient: &http.Client{Transport: transport, Timeout: requestTimeout},
		// Problems of the server are reported at once, and the next attempt comes later.
		RetryBackoff: func(n int, _ *http.Request, resp *http.Response) time.Duration {
			if n > 3 || resp == nil || resp.StatusCode != http.StatusBadRequest { // that is a bad nonce
				return -1
			}
			return time.Duration(n) * 100 * time.Millisecond
		},
	}, nil
}

// readCA returns the certificates of a file, and those of the system.
func readCA(file string) (*x509.CertPool, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s has no certificate", file)
	}
	return pool, nil
}

// register makes sure that there is an account. The administrator has agreed to the terms.
func register(ctx context.Context, client *acme.Client, email string) error {
	account := &acme.Account{}
	if email != "" {
		account.Contact = []string{"mailto:" + email}
	}
	_, err := client.Register(ctx, account, acme.AcceptTOS)
	if errors.Is(err, acme.ErrAccountAlreadyExists) {
		return nil
	}
	return err
}

// order orders a certificate for a name, proves with a challenge of that kind that the name leads here,
// and fetches the certificate.
func (p *Provider) order(ctx context.Context, client *acme.Client, s Settings, name, kind string) (*tls.Certificate, error) {
	order, err := client.AuthorizeOrder(ctx, acme.DomainIDs(name))
	if err != nil {
		return nil, err
	}
	for _, url := range order.AuthzURLs {
		if err := p.authorize(ctx, client, url, name, kind); err != nil {
			return nil, err
		}
	}
	if order, err = client.WaitOrder(ctx, order.URI); err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	if err != nil {
		return nil, err
	}
	chain, _, err := client.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	if err != nil {
		return nil, err
	}
	if err := fits(chain, name, key); err != nil {
		return nil, err
	}
	return store(s.Folder, name, key, chain)
}

// fits returns an error if the first certificate of chain is not for the name and the key.
func fits(chain [][]byte, name string, key *ecdsa.PrivateKey) error {
	if len(chain) == 0 {
		return errors.New("it issued an empty chain")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	if public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return errors.New("it issued a certificate for another key")
	}
	return leaf.VerifyHostname(name)
}

// authorize proves that a name leads here.
func (p *Provider) authorize(ctx context.Context, client *acme.Client, url, name, kind string) error {
	authz, err := client.GetAuthorization(ctx, url)
	if err != nil || authz.Status == acme.StatusValid {
		return err
	}
	for _, challenge := range authz.Challenges {
		if challenge.Type != kind {
			continue
		}
		remove, err := p.prepare(client, challenge, name)
		if err != nil {
			return err
		}
		defer remove()
		if _, err := client.Accept(ctx, challenge); err != nil {
			return err
		}
		_, err = client.WaitAuthorization(ctx, authz.URI)
		return err
	}
	return fmt.Errorf("it offers no %s challenge for %s", kind, name)
}

// prepare makes the Provider respond to a challenge until remove is called.
func (p *Provider) prepare(client *acme.Client, challenge *acme.Challenge, name string) (remove func(), err error) {
	if challenge.Type == "http-01" {
		response, err := client.HTTP01ChallengeResponse(challenge.Token)
		if err != nil {
			return nil, err
		}
		path := client.HTTP01ChallengePath(challenge.Token)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.responses[path] = response
		return func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.responses, path)
		}, nil
	}
	cert, err := client.TLSALPN01ChallengeCert(challenge.Token, name)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tokens[name] = &cert
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.tokens, name)
	}, nil
}

// Challenge responds to r if it belongs to a challenge of an ACME server (RFC 8555, 8.3). It reports
// whether it has responded.
func (p *Provider) Challenge(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
		return false
	}
	p.mu.Lock()
	response, known := p.responses[r.URL.Path]
	p.mu.Unlock()
	if !known {
		http.Error(w, "there is no such challenge", http.StatusNotFound)
		return true
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write([]byte(response))
	return true
}
