// Package observe defines what the proxy reports about its work: each request that it has served,
// each exchange with an upstream, rate limits, and what it stores or removes. Metrics and the record
// of the last hour are made from these events.
package observe

import "time"

// Observer is notified of what the proxy does. Its methods are called while requests are served, by
// many goroutines: they must be quick, must not block, and must not retain a pointer that they get,
// except that of a download until it ends.
type Observer interface {
	// RequestEnded reports a request of a client, when its response is out.
	RequestEnded(r *Request)

	// DownloadBegan reports that a blob is being sent to a client. Small ones are not reported.
	DownloadBegan(d *Download)

	// DownloadEnded reports that it is sent, or that sending broke off.
	DownloadEnded(d *Download)

	// UpstreamResponded reports an exchange with an upstream, also one that failed.
	UpstreamResponded(e Exchange)

	// TokenExchanged reports a request for a token for an upstream. Status is 0 if there was no
	// response. A token server at the upstream's own address makes an Exchange too.
	TokenExchanged(upstream string, status int)

	// RateLimited reports what an upstream says about its rate limit.
	RateLimited(l RateLimit)

	// ReachChanged reports that an upstream can no longer be reached and why, or, with nil, that it
	// can be reached again.
	ReachChanged(upstream string, err error)

	// SkipChanged reports that an upstream is skipped for a while because another one of the same
	// registry is faster, and why, or, with nil, that it no longer is.
	SkipChanged(upstream string, err error)

	// Hedged reports that an upstream was late, so that the next one was asked as well.
	Hedged(upstream string)

	// ConnectionsChanged reports that there are more or fewer connections to an upstream, its token
	// server, and where it redirects.
	ConnectionsChanged(upstream string, by int)

	// Prefetched reports bytes that were fetched before a client asked for them, and how many of
	// them no client has asked for.
	Prefetched(bytes, unused int64)

	// Evicted reports content that was removed to stay within the bounds of the cache.
	Evicted(bytes int64, files int)
}

// Request is a request that a client sent, and how it was served.
type Request struct {
	Registry   string // "docker.io"; "" for a request that is not for a registry
	Kind       string // "manifest", "blob", "tags" and so on; "" likewise
	Repository string // "library/alpine"
	Tag        string // of a manifest; "" if it was asked for by digest
	Digest     string // of the content; "" if unknown
	Method     string

	Status int
	Cache  string // "hit", "stale", "fill", "miss"; "" if no content was served
	Source Source // of the body
	Bytes  int64  // of the body that were sent
	Failed bool   // the response is an error, or broke off

	Started  time.Time
	Duration time.Duration

	Trusted   bool   // the caller is a trusted engine
	UID       int64  // the caller's user; -1 if it is on another host
	Remote    string // the caller's address and port
	UserAgent string
}

// Source is where the bytes of a response came from.
type Source uint8

// The sources.
const (
	Nowhere     Source = iota // sidemirror itself, such as an error
	Cache                     // the cache
	Upstream                  // an upstream, while the client waited
	Prefetch                  // an upstream, before a client asked
	SharedStore               // the store that hosts share, while the client waited
	sources
)

// Sources is the number of sources.
const Sources = int(sources)

// String returns "cache", "upstream", "prefetch" or "shared", and "none" for Nowhere.
func (s Source) String() string {
	return [...]string{"none", "cache", "upstream", "prefetch", "shared"}[s]
}

// Exchange is one request to an upstream, and its response.
type Exchange struct {
	Upstream   string // the upstream's host, and its port if it is not the scheme's
	Redirected bool   // the request went to where the upstream redirects
	Status     int    // 0 if there was no response
	Canceled   bool   // there was none because sidemirror needed it no more
}

// RateLimit is what an upstream says about how many requests it still serves.
type RateLimit struct {
	Upstream  string
	Registry  string
	Identity  string // "anonymous", "login" for sidemirror's own, "client" for a client's own
	Limit     int64  // -1 if unknown
	Remaining int64
	Window    time.Duration // for how long the limit is; 0 if unknown
	Reset     time.Time     // when requests are served again; zero if unknown
	Seen      time.Time
}

// Nothing is an Observer that does nothing, for others to embed.
type Nothing struct{}

// RequestEnded implements [Observer].
func (Nothing) RequestEnded(*Request) {}

// DownloadBegan implements [Observer].
func (Nothing) DownloadBegan(*Download) {}

// DownloadEnded implements [Observer].
func (Nothing) DownloadEnded(*Download) {}

// UpstreamResponded implements [Observer].
func (Nothing) UpstreamResponded(Exchange) {}

// TokenExchanged implements [Observer].
func (Nothing) TokenExchanged(string, int) {}

// RateLimited implements [Observer].
func (Nothing) RateLimited(RateLimit) {}

// ReachChanged implements [Observer].
func (Nothing) ReachChanged(string, error) {}

// SkipChanged implements [Observer].
func (Nothing) SkipChanged(string, error) {}

// Hedged implements [Observer].
func (Nothing) Hedged(string) {}

// ConnectionsChanged implements [Observer].
func (Nothing) ConnectionsChanged(string, int) {}

// Prefetched implements [Observer].
func (Nothing) Prefetched(int64, int64) {}

// Evicted implements [Observer].
func (Nothing) Evicted(int64, int) {}
