// Package shared is an object storage by which several hosts share blobs: what one of them has
// fetched, the others read there.
//
// The name of an object is the digest of its content and nothing else, so that the store learns no
// name of a repository and no tag. Nothing that comes from the store is believed: the caller verifies
// it. Whatever the store does, a pull is no worse than without it: a circuit breaker stops asking a
// store that fails, and asks again in the background.
package shared

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/observe"
)

const (
	// shortTimeout bounds requests with short responses, and the wait for the header of others.
	shortTimeout = 10 * time.Second

	dialTimeout = 3 * time.Second
	maxIdle     = 32
	idleTimeout = time.Minute

	// maxCA bounds the file of certificates, in bytes.
	maxCA = 1 << 20
)

// Config says where a store is.
type Config struct {
	Endpoint *url.URL
	Bucket   string
	Prefix   string // of all names in the bucket, without slashes at its ends
	Region   string

	// Credentials is a file as ~/.aws/credentials. Without it the systemd credential shared-store, the
	// environment, or the role of the instance has the credentials.
	Credentials string

	// CA is a file of certificates to trust in addition to the system's; "" for none.
	CA string

	// Proxy, if not nil, returns the forward proxy for a request.
	Proxy func(*http.Request) (*url.URL, error)

	// Queue is how many bytes may wait to be uploaded. With 0 nothing is uploaded or claimed.
	Queue int64
}

// Store is a shared store. It is safe for concurrent use.
type Store struct {
	config  Config
	bucket  bucket
	creds   *credentials.Credentials
	pool    *http.Transport
	breaker breaker
	bad     distrust
	uploads uploads
	counts  counts

	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup // probes and uploads
}

// counts are what happened since the start.
type counts struct {
	hits, misses, failed                     atomic.Int64
	stored, present, private, dropped, wrong atomic.Int64
	bytes, waits                             atomic.Int64
}

// New returns the store that c describes. It sends nothing.
func New(c Config) (*Store, error) {
	transport, err := c.transport()
	if err != nil {
		return nil, err
	}
	creds := c.credentials(os.Getenv)
	bucket, err := newBucket(c.Bucket, c.Endpoint.Host, &minio.Options{
		Creds:      creds,
		Secure:     c.Endpoint.Scheme == "https",
		Transport:  transport,
		Region:     c.Region,
		MaxRetries: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("the shared store at %s: %w", c.Endpoint.Host, err)
	}
	s := &Store{config: c, bucket: bucket, creds: creds, pool: transport}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// transport makes the connections of a store, which are its own.
func (c Config) transport() (*http.Transport, error) {
	t := &http.Transport{
		Proxy:                 c.Proxy,
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   maxIdle,
		IdleConnTimeout:       idleTimeout,
		DisableCompression:    true,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if c.CA == "" {
		return t, nil
	}
	pem, err := readBounded(c.CA, maxCA)
	if err != nil {
		return nil, fmt.Errorf("the certificates of the shared store: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the certificates of the shared store: %s has no certificate in PEM", c.CA)
	}
	t.TLSClientConfig.RootCAs = pool
	return t, nil
}

// readBounded reads a file of at most so many bytes.
func readBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return data, err
}

// Close ends the uploads. What waits to be uploaded is dropped.
func (s *Store) Close() {
	s.uploads.close()
	s.end()
	s.work.Wait()
	s.pool.CloseIdleConnections()
}

// Uploads reports whether this host adds to the store.
func (s *Store) Uploads() bool { return s.config.Queue > 0 }

// Ready reports whether the store may be asked. If it has failed lately, it may not; then, from time to
// time, Ready makes a request in the background that finds out whether the store serves again.
func (s *Store) Ready() bool {
	ready, probe := s.breaker.ask(time.Now())
	if probe {
		s.work.Go(func() { _ = s.probe(s.life) })
	}
	return ready
}

// Probe asks whether the store serves, so that what is wrong shows before the first pull.
func (s *Store) Probe(ctx context.Context) { _ = s.probe(ctx) }

// nothing is a digest that no content has.
var nothing = digest.NewDigestFromEncoded(digest.SHA256, "0000000000000000000000000000000000000000000000000000000000000000")

func (s *Store) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	body, _, _, err := s.bucket.get(ctx, s.blobKey(nothing), minio.GetObjectOptions{})
	if err == nil {
		_ = body.Close()
	}
	if isMissing(err) {
		err = nil
	}
	s.result(ctx, err)
	return err
}

// result records whether the store has done what it was asked for. A request that the caller has ended
// says nothing.
func (s *Store) result(ctx context.Context, err error) {
	switch {
	case err == nil:
		s.breaker.succeeded()
	case errors.Is(err, context.Canceled) || errors.Is(ctx.Err(), context.Canceled):
		s.breaker.unknown()
	default:
		f := s.faultOf(err)
		if f.code == codeRefused {
			s.creds.Expire() // they may have been replaced
		}
		s.counts.failed.Add(1)
		s.breaker.failed(f, time.Now())
	}
}

// Problems returns what is wrong with the store.
func (s *Store) Problems() []*problem.Problem {
	var list []*problem.Problem
	for _, f := range []*fault{s.breaker.fault(), s.uploads.fault()} {
		if f != nil {
			list = append(list, s.report(f))
		}
	}
	return list
}

// Stats returns what happened since the start.
func (s *Store) Stats() observe.Shared {
	c := &s.counts
	return observe.Shared{
		Asked: s.breaker.fault() == nil,
		Hits:  c.hits.Load(), Misses: c.misses.Load(), Failed: c.failed.Load(), Wrong: c.wrong.Load(),
		Uploaded: c.stored.Load(), Present: c.present.Load(), Private: c.private.Load(), Dropped: c.dropped.Load(),
		UploadedBytes: c.bytes.Load(), Waits: c.waits.Load(),
	}
}

// blobKey returns the name of the object that has a blob.
func (s *Store) blobKey(d digest.Digest) string { return s.key("blobs", d) }

// claimKey returns the name of the object by which a host claims a blob.
func (s *Store) claimKey(d digest.Digest) string { return s.key("claims", d) }

func (s *Store) key(kind string, d digest.Digest) string {
	return path.Join(s.config.Prefix, kind, d.Algorithm().String(), d.Encoded()[:2], d.Encoded())
}
