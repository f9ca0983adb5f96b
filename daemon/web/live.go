package web

import "time"

// Live is what the page shows of what happens on the host. The times are relative to At.
type Live struct {
	// At is when it was found out.
	At time.Time

	// Engines are the container engines of the host. Watched says that the service that configures
	// them has reported them; otherwise the list is not known.
	Engines []Engine
	Watched bool

	// LastPull is when an engine last pulled through sidemirror; zero if none has since the start.
	LastPull time.Time

	// Problems are what is wrong now, the worst first.
	Problems []Problem

	// Pulls are those of the last hour, the latest first.
	Pulls []Pull

	// Downloads are what is being sent to engines now, the one that began first first.
	Downloads []Download

	// Traffic is the last hour in slices of the same length, the oldest first.
	Traffic []Traffic

	// Upstreams are the servers that content is fetched from.
	Upstreams []Upstream

	// Budgets are how many pulls registries still allow.
	Budgets []Budget

	// Stored is how much the cache holds, Room the most that it may hold. Room is 0 if nothing is
	// stored.
	Stored, Room int64
}

// Engine is a container engine of the host.
type Engine struct {
	// Name is what the command line calls it: "docker". Home is the distribution that brought it, as
	// "k3s"; empty if it is the host's own.
	Name, Home string

	// Through says whether its pulls go through sidemirror.
	Through Through

	// HubOnly says that only those from Docker Hub do, and that the engine can do no more.
	HubOnly bool
}

// Through says whether an engine's pulls go through sidemirror.
type Through int

const (
	// Unknown means that it could not be found out.
	Unknown Through = iota
	// No means that no pull does.
	No
	// Partly means that some pulls do and others should but do not.
	Partly
	// Yes means that all pulls that should go through sidemirror do.
	Yes
)

// Problem is something that is wrong now.
type Problem struct {
	// Code names its kind, Title describes that in general. Neither tells anything about this host.
	Code, Title string

	// Text says what happened, Hint what to do about it. Trusted callers alone see them.
	Text, Hint string

	// Severe says that something on this host must be repaired, Note that nothing is wrong.
	Severe, Note bool
}

// Pull is what an engine has asked for of one image.
type Pull struct {
	Image   string // as people write it: "docker.io/library/redis:latest"
	Engine  string // "docker"; empty if that is not known
	Start   time.Time
	Took    time.Duration
	Checked bool // the engine had the image already, and asked for no layer
	Failed  bool

	// Stored and Fetched are the bytes that came from the cache and from a registry.
	Stored, Fetched int64
}

// Download is what is being sent of one image to one engine.
type Download struct {
	Image, Engine string // as of Pull
	From          string // the server that it is fetched from; empty if it is in the cache
	Sent, Size    int64  // bytes; Size is 0 if it is not known
}

// Traffic is what was sent to engines in a slice of time.
type Traffic struct {
	Stored, Fetched int64 // bytes that came from the cache, and from a registry
	Hits, Requests  int64 // responses of the cache, and all those with content
}

// Upstream is a server that content is fetched from.
type Upstream struct {
	Registry string // whose content it has
	Host     string // trusted callers alone see it
	Away     bool   // it could not be reached when it was last asked
	Why      string // it could not; trusted callers alone see it
	Since    time.Time
}

// Budget is how many pulls a registry still allows to one identity.
type Budget struct {
	Registry  string
	Login     bool // the daemon has logged in; otherwise the host is anonymous
	Remaining int
	Limit     int           // 0: unknown
	Window    time.Duration // the limit is for; 0: unknown
	Reset     time.Time     // when more are allowed; zero if that is not known
}
