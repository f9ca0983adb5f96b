package proxy

import (
	"net/http"
	"net/url"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/credential"
)

// Config is what a [Proxy] is made from. The daemon validates it: New takes it
// as it is and fails only on what it has to read from disk (certificates).
type Config struct {
	// Registries are the registries served, each name once.
	Registries []Registry

	// Default names the registry of a request that names none: "docker.io".
	Default string

	// OwnHosts are the host names, without ports, by which requests may address us
	// beside the loopback ones and the registries' Hosts.
	OwnHosts []string

	// TrustedUIDs are the users whose processes, asking over loopback, are served
	// with the daemon's credentials. Everybody else is anonymous.
	TrustedUIDs []uint32

	// Credentials, if nil, knows none.
	Credentials credential.Source

	// Page, if not nil, answers "/" for requests that address us by a name of ours.
	Page http.Handler

	// Cache, if nil, keeps nothing.
	Cache *cache.Dir

	// Freshness bounds how old an answer from the cache may be.
	Freshness Freshness

	// Version is sent upstream in the User-Agent.
	Version string

	// Log, if nil, discards.
	Log *logrus.Logger
}

// Freshness bounds how old an answer from the cache may be (protocol.md §4).
type Freshness struct {
	// Timeout bounds the asking what a tag means where something is kept to answer
	// with. 0: 5 s.
	Timeout time.Duration

	// TagTTL is for how long a tag's meaning is believed without asking. 0: it is
	// asked at each pull.
	TagTTL time.Duration

	// MaxStale is for how long what is kept is served while the upstream is out of
	// reach, in trouble or asks to be left alone. 0: not at all.
	MaxStale time.Duration
}

// Registry is one registry served: the name that references use and where its
// content is fetched from.
type Registry struct {
	// Name as a reference has it: "docker.io", "registry.corp.example:5000". "*"
	// stands for every registry that is not named; it has no Upstreams and is
	// served to trusted engines only.
	Name string

	// Upstreams are tried in order: http or https, with or without a path.
	Upstreams []*url.URL

	// Hosts are host names of ours (no port) that stand for this registry.
	Hosts []string

	// Relay hands challenges to the client (the worker's way) instead of answering
	// them with the daemon's credentials.
	Relay bool

	// CA is the path of PEM certificates to trust beside the system's, for the
	// upstreams, their token servers and their redirects.
	CA string

	// Cert and Key are the paths of a PEM client certificate and its key, shown to
	// the upstreams alone.
	Cert, Key string

	// Realms are origins ("https://sso.corp.example") that may be asked for tokens
	// beside the upstream's own.
	Realms []string

	// Probe has the upstreams asked once after the start, so that the log says at
	// once which of them cannot be reached.
	Probe bool

	// DialTimeout bounds a connection's being made, TLS included; HeaderTimeout the
	// wait for an answer's headers after that. 0 means 5 s and 10 s.
	DialTimeout, HeaderTimeout time.Duration
}
