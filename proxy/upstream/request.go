package upstream

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

// Identity is in whose name an upstream is asked.
type Identity struct {
	// Access, if not nil, is on whose behalf sidemirror answers challenges. If it is nil the
	// client answers them, with an Authorization of its own.
	Access        *auth.Access
	Authorization credential.Secret

	// Certificate means that the upstream may see the client certificate. It is a credential
	// of the daemon's like its login.
	Certificate bool
}

// Request is what is asked of an upstream.
type Request struct {
	Method string // GET or HEAD
	Path   string // "/v2/library/alpine/manifests/3.20"
	Query  url.Values
	Header http.Header // Accept, Range, If-Range

	// Patient says that the client has no other server to ask: an upstream that was out
	// of reach a moment ago is tried all the same.
	Patient bool

	// HeaderTimeout is how long the response header may take. 0 means as long as the registry's
	// header_timeout, and at most 10 s while another upstream can be asked; [Unlimited] means
	// as long as the context lives.
	HeaderTimeout time.Duration

	// Separate asks for a TCP connection that no other request uses meanwhile, so that the
	// response does not share the rate of another one. If there are as many as there may be, the
	// error is [ErrNoSlot].
	Separate bool

	// Ahead says that no client has asked for the blob yet. If the connections are needed for
	// others, the error is [ErrNoSlot].
	Ahead bool

	// Untrusted says that the caller is. Its connections take none of those that others may have.
	Untrusted bool

	// Target, if not nil, is where earlier requests for the same blob were redirected.
	Target *Target

	// Others are upstreams that are not asked, and have the blob too: what one sends slowly is compared
	// with them.
	Others Pool

	Identity

	rival   func() (rival, bool) // with what a blob's rate is compared; nil: with nothing
	others  bool                 // another upstream can be asked after this one
	elapsed time.Duration        // while others were asked
}

// firstByte is the Range of a request that only wants to know the length.
const firstByte = "bytes=0-0"

// firstBytes is the Range of a request that measures how fast a blob comes.
var firstBytes = fmt.Sprintf("bytes=0-%d", sampleSize-1)

// blob returns the digest of the blob whose body r asks for, "" if it asks for no such body.
func (r Request) blob() digest.Digest {
	if r.Method != http.MethodGet || r.Header.Get("Range") == firstByte {
		return ""
	}
	_, last, ok := strings.Cut(r.Path, "/blobs/")
	dgst, err := digest.Parse(last)
	if !ok || err != nil {
		return ""
	}
	return dgst
}

// identity tells callers apart for the upstream's 429s.
func (r Request) identity() string {
	var who string
	if r.Access == nil {
		who = auth.Fingerprint(r.Authorization.Reveal())
	} else {
		who = r.Access.Credential.Generation
	}
	if r.Certificate {
		who += " with certificate"
	}
	return who
}

// headerTimeout returns how long the response header of r may take; less than 0 means without a
// limit, and 0 that the transport's own counts.
func (u *Upstream) headerTimeout(r Request) time.Duration {
	limit := r.HeaderTimeout
	switch {
	case limit < 0 && r.others:
		return u.header
	case limit == 0:
		limit = min(u.header, max(u.header-r.elapsed, u.headerOfSeveral/2))
		if r.others && !r.Patient {
			limit = min(limit, u.headerOfSeveral)
		}
	}
	return limit
}

// Do asks the upstream, follows its redirects and decodes what it compressed unasked.
// The response's body fails if it pauses for [BodyPause]. A response of any status is returned
// without an error, except 429 and a redirect that cannot be followed. Until the
// Retry-After of a 429 is over, nothing is asked. Errors are an [*oci.Error].
func (u *Upstream) Do(ctx context.Context, r Request) (*http.Response, error) {
	if wait := u.holds.left(r); wait > 0 {
		return nil, u.tooMany(wait)
	}
	ctx = awaitingHeader(ctx, u.headerTimeout(r))
	if r.Separate {
		ctx = separately(ctx)
	}
	resp, err := u.fetch(ctx, r)
	if err == nil && encoded(resp) {
		resp, err = u.fetchContent(ctx, r, resp)
	}
	return r.censored(resp, err)
}

// fetch asks the upstream and follows its redirects, or asks where it redirected before.
func (u *Upstream) fetch(ctx context.Context, r Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	resp, err := u.fetchAgain(ctx, r)
	if err == nil && resp == nil {
		resp, err = u.ask(ctx, r, u.target(r))
	}
	if err == nil {
		resp, err = u.settle(ctx, r, resp)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = newPausingBody(resp.Body, u.bodyPause, cancel)
	return resp, nil
}
