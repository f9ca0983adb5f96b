package quirky

import (
	"net/http"
	"time"
)

// Options say how a [Server] departs from a well-behaved registry. The zero value is a
// well-behaved one: open to every client, with all headers, and without redirects for blobs.
type Options struct {
	// Address is the registry's host:port; empty is a free port of 127.0.0.1.
	Address string

	// TLS serves https and HTTP/2, with a certificate that Server.CA vouches for.
	TLS bool

	Auth     Auth
	Manifest Manifest
	Blobs    Blobs
	Lists    Lists
	Limit    Limit

	// OKStatus, if not 0, is sent in place of 200: 203 by a proxy that changes what passes.
	OKStatus int

	// Intercept, if not nil, sees every request first, and answers it where it
	// returns true: for what no option is there for.
	Intercept func(part Part, w http.ResponseWriter, r *http.Request) bool
}

// Auth is who may pull and how a client comes by a token.
type Auth struct {
	// Scheme is "" (open), "Bearer" or "Basic".
	Scheme string

	// Users are names and passwords. A wrong one is refused even where anonymous
	// clients are served.
	Users map[string]string

	// IdentityTokens maps OAuth2 refresh tokens to the users they stand for.
	IdentityTokens map[string]string

	// Private are prefixes of the repositories that anonymous clients may not pull;
	// "" is all. As at Docker Hub, an anonymous client still gets a token, which the
	// registry then refuses.
	Private []string

	// RefuseAnonymous makes the token server answer 401 to a client without a
	// login, as distribution's does.
	RefuseAnonymous bool

	// ForeignHost puts the token server on a host and port of its own; else it is
	// /token on the registry's.
	ForeignHost bool

	// Realm replaces the realm's URL in challenges.
	Realm string

	// Challenge makes the WWW-Authenticate values; nil is the plain one. See Challenges.
	Challenge Challenge

	// ProbeScope is the scope that the challenge to /v2/ names, as ghcr.io's
	// "repository:user/image:pull".
	ProbeScope string

	// PostOnly answers 405 to GET at the token server, GetOnly to POST.
	PostOnly, GetOnly bool

	// ExpiresIn is the JSON value of expires_in: "" is 300, "-" leaves it out.
	ExpiresIn string

	// Life is how long the registry takes a token; 0 is an hour.
	Life time.Duration

	// AccessToken names the token access_token instead of token.
	AccessToken bool

	// TokenSize pads tokens to so many bytes.
	TokenSize int

	// TokenStatus, TokenType and TokenBody, where one is set, are the token server's
	// whole answer.
	TokenStatus int
	TokenType   string
	TokenBody   []byte

	// TokenStall sends TokenBody, or the headers alone, and then nothing more.
	TokenStall bool

	// StaleStatus answers a token that has expired or was revoked, in place of 401:
	// 400 and 403 at ECR Public.
	StaleStatus int
}

// Manifest is how manifests are served.
type Manifest struct {
	// NoDigest leaves Docker-Content-Digest out, NoLength Content-Length of HEAD,
	// NoType Content-Type.
	NoDigest, NoLength, NoType bool

	// Type replaces the Content-Type.
	Type string

	// Chunked sends bodies without a length.
	Chunked bool

	// Gzip compresses bodies, whatever the client accepts.
	Gzip bool

	// Negotiate serves an index only to a client that accepts its type, and its
	// first manifest to others, as Docker Hub.
	Negotiate bool

	// HEADStatus, if not 0, answers every HEAD.
	HEADStatus int

	// HTML answers 200 with an HTML page: a captive portal, a broken load balancer.
	HTML bool

	// Fault befalls bodies.
	Fault Fault
}

// Blobs is how blobs are served, and from where.
type Blobs struct {
	// Redirect, if not 0, is the status (307) that sends clients to the blob store, which is
	// another host: 127.0.0.2 and a port of its own.
	Redirect int

	// Relative redirects to a path of the registry's own host instead, as Artifact
	// Registry does.
	Relative bool

	// Location rewrites the signed URL on its way into the Location header.
	Location func(signed string) string

	// OneUse makes a signed URL good for one GET; Life bounds its age (0: an hour).
	OneUse bool
	Life   time.Duration

	// RefuseAuthorization answers 400 to a request with an Authorization header and
	// RefuseHEAD 403 to HEAD, as S3 does with a URL signed for GET.
	RefuseAuthorization, RefuseHEAD bool

	// Chunked sends bodies without a length; NoDigest leaves Docker-Content-Digest out.
	Chunked, NoDigest bool

	// Gzip compresses bodies, whatever the client accepts.
	Gzip bool

	// NoRange answers 200 and the whole blob to Range. WrongRange answers 206 with
	// the first bytes of the blob, which its Content-Range owns up to.
	NoRange, WrongRange bool

	// Fault befalls bodies.
	Fault Fault
}

// Lists is how tags and referrers are listed.
type Lists struct {
	// PageSize bounds a page of tags; 0 leaves that to the client's n.
	PageSize int

	// AbsoluteLink writes the whole URL into Link instead of a path.
	AbsoluteLink bool

	// NoReferrers answers 404 to the referrers API, Unfiltered ignores artifactType.
	NoReferrers, Unfiltered bool
}

// Limit is a rate limit.
type Limit struct {
	// Status, if not 0, answers requests for manifests and blobs: 429.
	Status int

	// Times is how many are so answered; 0 is all.
	Times int

	// RetryAfter is that header; empty leaves it out.
	RetryAfter string

	// Body is sent with it: JSON where it starts with "{", else as plain text.
	Body string

	// Header is added to every answer about a manifest: ratelimit-limit and so on.
	Header http.Header
}

// FaultKind is what goes wrong with a body.
type FaultKind string

// Kinds of [Fault]. Bytes before At are right in all of them.
const (
	Reset FaultKind = "reset" // TCP RST, or RST_STREAM on HTTP/2
	Cut   FaultKind = "cut"   // the connection closes before Content-Length is reached
	Short FaultKind = "short" // ends cleanly, and its Content-Length is that of what was sent
	Flip  FaultKind = "flip"  // the byte at At is another one
	Extra FaultKind = "extra" // one byte too many at the end, and Content-Length counts it
	Stall FaultKind = "stall" // nothing more comes, until the client leaves
)

// Fault is something that goes wrong with the body of an answer to GET.
type Fault struct {
	// Kind is what; empty is nothing.
	Kind FaultKind

	// At is how many bytes of the answer's body are right.
	At int

	// Times is how many answers it befalls; 0 is all.
	Times int

	// Wait, if not nil, is waited for at At.
	Wait <-chan struct{}
}

// Like gives the options that imitate a public registry as it was when
// this was written: "docker.io", "ghcr.io", "quay.io", "ecr", "public.ecr.aws",
// "artifactregistry". Any other name is the well-behaved one.
func Like(name string) Options {
	var o Options
	signed := Blobs{Redirect: http.StatusTemporaryRedirect, RefuseAuthorization: true, RefuseHEAD: true, NoDigest: true}
	switch name {
	case "docker.io":
		o.Auth = Auth{Scheme: "Bearer", ForeignHost: true}
		o.Manifest.Negotiate = true
		o.Blobs = signed
		o.Limit.Header = http.Header{
			"Ratelimit-Limit":         {"100;w=21600"},
			"Ratelimit-Remaining":     {"76;w=21600"},
			"Docker-Ratelimit-Source": {"192.0.2.7"},
		}
	case "ghcr.io":
		o.Auth = Auth{Scheme: "Bearer", ProbeScope: "repository:user/image:pull", ExpiresIn: "-"}
		o.Blobs = signed
		o.Lists.NoReferrers = true
	case "quay.io":
		o.Auth = Auth{Scheme: "Bearer", ExpiresIn: "-", GetOnly: true}
		o.Blobs = signed
		o.Blobs.Redirect = http.StatusFound
	case "ecr":
		o.Auth = Auth{Scheme: "Basic"}
		o.Blobs = signed
		o.Manifest.NoDigest = true
	case "public.ecr.aws":
		o.Auth = Auth{Scheme: "Bearer", ExpiresIn: "-", StaleStatus: http.StatusForbidden, TokenSize: 5 << 10}
		o.Blobs = signed
	case "artifactregistry":
		o.Auth = Auth{Scheme: "Bearer"}
		o.Blobs = Blobs{Redirect: http.StatusFound, Relative: true}
		o.Lists.AbsoluteLink = true
	}
	return o
}
