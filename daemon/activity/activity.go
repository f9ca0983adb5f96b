// Package activity records what the proxy did in the last hour: pulls, traffic, rate limits and the
// health of upstreams. The record is in memory and bounded. The page, "sidemirror status" and the
// admin API show it.
package activity

import (
	"slices"
	"time"
)

// Activity is what happened lately. It has no secret, but the names of images: see
// [Activity.WithoutImages].
type Activity struct {
	// Since is when the recording began.
	Since time.Time `json:"since"`

	// Pulls are those of the last hour, the one that began last first.
	Pulls []Pull `json:"pulls"`

	// Downloads are the large blobs that are being sent now, the one that began first first.
	Downloads []Download `json:"downloads"`

	// Minutes is the traffic of each of the last 60 minutes, the oldest first.
	Minutes []Traffic `json:"minutes"`

	// Day is the traffic of the last 24 hours.
	Day Traffic `json:"day"`

	// RateLimits are those that upstreams have reported, in the order of their registries.
	RateLimits []RateLimit `json:"rate_limits"`

	// Upstreams are those that were asked, in the order of their names.
	Upstreams []Upstream `json:"upstreams"`

	// Engines are the engines of this host that have pulled, the last one first.
	Engines []Engine `json:"engines"`
}

// WithoutImages returns the activity without what tells which images this host runs: its pulls and
// downloads, and the upstreams that no configuration names.
func (a Activity) WithoutImages() Activity {
	a.Pulls, a.Downloads = []Pull{}, []Download{}
	a.Upstreams = slices.DeleteFunc(slices.Clone(a.Upstreams), func(u Upstream) bool { return !u.Configured })
	a.RateLimits = slices.DeleteFunc(slices.Clone(a.RateLimits), func(l RateLimit) bool {
		return !slices.ContainsFunc(a.Upstreams, func(u Upstream) bool { return u.Name == l.Upstream })
	})
	return a
}

// Pull is the requests of one caller for one image.
type Pull struct {
	Image   string    `json:"image"`   // "docker.io/library/alpine:3.20"
	Engine  string    `json:"engine"`  // by its User-Agent: "docker", "containerd" and so on, or "other"
	Trusted bool      `json:"trusted"` // the caller is a trusted engine
	UID     int64     `json:"uid"`     // the caller's user; -1 if it is on another host
	Started time.Time `json:"started"`
	Outcome Outcome   `json:"outcome"`
	Seconds float64   `json:"seconds"` // from the first request to the end of the last one
	Speed   float64   `json:"speed"`   // in bytes per second; 0 if no layer was sent

	Requests int   `json:"requests"`
	Failures int   `json:"failures"` // requests that got an error
	Bytes    Bytes `json:"bytes"`
}

// Outcome says in a word how a pull was served.
type Outcome string

// The outcomes.
const (
	Stored  Outcome = "stored"  // all layers were in the cache
	Fetched Outcome = "fetched" // layers came from an upstream
	Mixed   Outcome = "mixed"   // some were in the cache
	Checked Outcome = "checked" // the engine has the image already: it asked for no layer
	Failed  Outcome = "failed"  // the last request got an error, and no layer was sent
)

// Bytes are bytes of bodies that were sent to clients, by where they came from.
type Bytes struct {
	Cache    int64 `json:"cache"`    // from the cache
	Upstream int64 `json:"upstream"` // from an upstream, while the client waited
	Prefetch int64 `json:"prefetch"` // from an upstream, before the client asked
}

// Total returns the sum.
func (b Bytes) Total() int64 { return b.Cache + b.Upstream + b.Prefetch }

// Traffic is what was served in a time.
type Traffic struct {
	Start    time.Time `json:"start"`
	Requests int64     `json:"requests"` // for manifests and blobs that were served
	Hits     int64     `json:"hits"`     // of those, served from the cache
	Bytes    Bytes     `json:"bytes"`    // Bytes.Cache is what no upstream had to send
}

// HitRate returns which share of the requests was served from the cache, from 0 to 1; 0 without any.
func (t Traffic) HitRate() float64 {
	if t.Requests == 0 {
		return 0
	}
	return float64(t.Hits) / float64(t.Requests)
}

// RateLimit is what an upstream said last about how many requests it still serves.
type RateLimit struct {
	Registry  string     `json:"registry"`
	Upstream  string     `json:"upstream"`
	Identity  string     `json:"identity"`        // "anonymous", "login" for sidemirror's own, "client" for a client's own
	Limit     *int64     `json:"limit,omitempty"` // nil if unknown
	Remaining int64      `json:"remaining"`
	Window    float64    `json:"window_seconds,omitempty"` // for how long the limit is; 0 if unknown
	Reset     *time.Time `json:"reset,omitempty"`          // when the upstream serves requests again; nil if unknown
	Seen      time.Time  `json:"seen"`
}

// Upstream is what is known of an upstream.
type Upstream struct {
	Name       string     `json:"name"`       // its host, and its port if it is not the scheme's
	Configured bool       `json:"configured"` // the configuration names it
	Reachable  bool       `json:"reachable"`
	Reason     string     `json:"reason,omitempty"`  // why it cannot be reached
	Changed    *time.Time `json:"changed,omitempty"` // when that changed last
	Skipped    string     `json:"skipped,omitempty"` // why another upstream of its registry is asked first
	LastStatus int        `json:"last_status,omitempty"`
	LastAsked  time.Time  `json:"last_asked"`
	Requests   int64      `json:"requests"` // since the start
	Failures   int64      `json:"failures"` // of those, without a response or with a status from 500 on
}

// Engine is an engine of this host that has pulled through sidemirror.
type Engine struct {
	Name string    `json:"name"` // as in [Pull]
	Last time.Time `json:"last"` // when its last request ended
}
