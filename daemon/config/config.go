// Package config is the configuration of sidemirror: its types and defaults, how it is
// read from the file and the environment, checked and shown.
package config

import (
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/sidemirror/sidemirror/internal/secret"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// DefaultFile is the configuration file if no other one is named. It may be missing.
const DefaultFile = "/etc/sidemirror/config.toml"

// Config is the whole configuration: what [Load] made of the defaults, the file and the
// environment, after checking it. The comment of each field names its key; keys of tables are
// written with a dot ("log.level" is level in [log]). The environment variable of a key is
// SIDEMIRROR_ and the key in capitals, with "_" for every other character
// (SIDEMIRROR_LOG_LEVEL). It has commas between the elements of a list.
type Config struct {
	// File is the file that was read, or DefaultFile if there is none.
	File string

	// Listen (listen, a list of "IP:PORT") are the addresses served; IPv6 addresses are in
	// brackets. Sockets that systemd hands over replace them. If the host has no IPv6, [::1] is
	// left out. Default 127.0.0.1:305 and [::1]:305.
	Listen []netip.AddrPort

	// ShutdownTimeout (shutdown_timeout, as "30s") is how long requests under way may take
	// after SIGTERM. Default 30 s.
	ShutdownTimeout time.Duration

	// Registries ([registry."NAME"]) are the registries served. docker.io, ghcr.io, quay.io,
	// registry.k8s.io and "*" are served without being named; a table with one of these names
	// changes only the keys that it has. "*" is left out if it is not enabled.
	Registries []Registry

	// Credentials is [credentials].
	Credentials struct {
		// Files (files, a list of absolute paths) are credential files in the format of
		// Docker's config.json or containers' auth.json. They are searched in this order, after
		// Store. Default none.
		Files []string

		// Store (store, an absolute path) is the file in which "sidemirror login" stores
		// credentials. Default /var/lib/sidemirror/credentials.json.
		Store string

		// Helpers (helpers, a list of "HOST=NAME") say which credential helper,
		// docker-credential-NAME, has the login of a registry. HOST may have the wildcards of the
		// kubelet: "*.dkr.ecr.*.amazonaws.com=ecr-login". Default none.
		Helpers []string

		// HelperDirs (helper_dirs, a list of absolute paths) are the folders of credential helpers.
		// Default /usr/local/bin and /usr/bin.
		HelperDirs []string

		// HelperEnvironment (helper_environment, a list of names) are the variables of sidemirror's
		// own environment that helpers and plugins get, in addition to HOME and PATH. Default none.
		HelperEnvironment []string

		// Plugins (plugins, an absolute path) is the kubelet's CredentialProviderConfig, a file or
		// a folder, as in its flag --image-credential-provider-config. Default none.
		Plugins string

		// PluginDir (plugin_dir, an absolute path) is the folder of these plugins, as in
		// --image-credential-provider-bin-dir. Default none.
		PluginDir string
	}

	// Cache is [cache].
	Cache struct {
		// Dir (dir, an absolute path) is the folder that stores what was pulled. With ""
		// nothing is stored. Default /var/cache/sidemirror.
		Dir string

		// MaxSize (max_size, as "20GiB") is how much content is stored. What was used longest
		// ago is removed first. Default 20 GiB.
		MaxSize Size

		// MinFree (min_free, as "10%" or "5GiB") is how much of the folder's file system stays
		// free, however little is stored then. Default 10 %.
		MinFree Free

		// MaxStale (max_stale) is how long stored content is served while the registry cannot
		// be reached or fails; with 0 it is not. Default 168 h.
		MaxStale time.Duration

		// TagTTL (tag_ttl) is how long the meaning of a tag is used again without asking the
		// registry. Default 0: the registry is asked at each pull.
		TagTTL time.Duration

		// FreshnessTimeout (freshness_timeout) is how long to wait for the registry before
		// stored content is served instead. Default 5 s.
		FreshnessTimeout time.Duration

		// Prefetch (prefetch) makes sidemirror fetch the layers of an image that an engine will
		// ask for next. Default true.
		Prefetch bool

		// Shared is [cache.shared].
		Shared Shared
	}

	// Outbound is [outbound]: the forward proxy through which registries are reached.
	Outbound struct {
		// HTTPProxy and HTTPSProxy (http_proxy and https_proxy, URLs as "http://proxy.example:3128",
		// which may have a login) are the proxies for http and https upstreams. If either is set,
		// neither the variables HTTP_PROXY and HTTPS_PROXY count nor the engines' proxy. Default none.
		HTTPProxy, HTTPSProxy secret.Secret

		// NoProxy (no_proxy, a list of names, addresses and networks as in the variable NO_PROXY) is
		// what is reached without the proxy, in addition to what the proxy's own list has. Default none.
		NoProxy []string

		// AdoptProxy (adopt_proxy) makes sidemirror use the proxy of the host's engines if it has none
		// of its own. Default true.
		AdoptProxy bool
	}

	// Trust is [trust].
	Trust struct {
		// UIDs (uids, a list of user ids) are the users whose processes are served with the
		// daemon's credentials. Every other user is anonymous. Default 0, root, as which Docker
		// and containerd run.
		UIDs []uint32

		// Units (units, a list of names of systemd units) are the units whose processes are. Names
		// may have "*". "default" stands for those of container engines and for login sessions, "*"
		// for everything but containers, and a path for one control group. Processes of containers
		// are always anonymous. Default ["default"].
		Units []string
	}

	// Guests is [guests]: containers and virtual machines of this host that have a network of their own.
	Guests Guests

	// Site is [site]: the mirror on a domain of its own, for other hosts.
	Site Site

	// Page is [page]: the page at "/".
	Page struct {
		// ShowImages (show_images) shows every caller which images are pulled, exact figures and the
		// details of problems. Otherwise trusted callers alone see them. Default false.
		ShowImages bool
	}

	// Metrics is [metrics].
	Metrics struct {
		// Listen (listen, a list of addresses) is where the metrics are served for Prometheus, to
		// everyone who can connect. Default none: they are on the admin socket alone.
		Listen []netip.AddrPort
	}

	// Engine is [engine]: which engines "plan", "apply" and "watch" configure.
	Engine struct {
		// AdoptClientKeys (adopt_client_keys) allows a copy of client keys that only root can read, for
		// registries to which the engines show a client certificate. Default false.
		AdoptClientKeys bool

		// HandoverDir (handover_dir, an absolute path) is the folder in which "watch" hands over to the
		// daemon how the engines reach registries. With "" nothing is handed over. Default
		// /run/sidemirror-hosts.
		HandoverDir string

		// Docker is [engine.docker].
		Docker struct {
			// Enabled (enabled) makes sidemirror configure Docker. Default true.
			Enabled bool
		}

		// Containerd is [engine.containerd].
		Containerd struct {
			// Enabled (enabled) makes sidemirror configure containerd. Default true.
			Enabled bool

			// Restart (restart) allows sidemirror to set config_path in containerd's own
			// configuration, and to restart containerd for it. Default false.
			Restart bool
		}

		// Podman is [engine.podman].
		Podman struct {
			// Enabled (enabled) makes sidemirror configure podman, buildah and skopeo, which
			// share their files. Default true.
			Enabled bool
		}

		// CRIO is [engine.crio].
		CRIO struct {
			// Enabled (enabled) makes sidemirror configure CRI-O. Default true.
			Enabled bool
		}

		// BuildKit is [engine.buildkit].
		BuildKit struct {
			// Enabled (enabled) makes sidemirror configure buildkitd. Default true.
			Enabled bool

			// Restart (restart) allows sidemirror to restart buildkitd after it has written its
			// configuration. Default false.
			Restart bool
		}
	}

	// Log is [log].
	Log struct {
		// Level (level) is the least important level that is logged: "error", "warn", "info",
		// "debug" or "trace". Default "info".
		Level string

		// Format (format) is "text", "json" or "auto". If standard error is the journal, "auto"
		// puts journald's <N> before each line and leaves the time out; otherwise it is "text".
		// Default "auto".
		Format string
	}

	off    []Registry // "*", if it is not enabled
	source source
	from   map[string]origin
}

// Registry is one [registry."NAME"]. NAME is the name that references use, with its port if it
// has one. "*" stands for every registry that is not named.
type Registry struct {
	// Name is NAME.
	Name string

	// Enabled (enabled) says whether registries that are not named are served; it is for "*" alone.
	// Default true.
	Enabled bool

	// Upstreams (upstreams, a list of http or https URLs) are the servers that the registry's
	// content is fetched from, tried in order. A path after "/v2/" comes before each repository's
	// name. "ns+" and "optional+" may come before the scheme. Default https://NAME; "*" has none.
	Upstreams []Upstream

	// Hosts (hosts, a list of host names without port) are names of this host. A request whose
	// Host header has one of them is for this registry. Default none.
	Hosts []string

	// ClientAuth (client_auth) says who answers the upstream's challenges: with "daemon" it is
	// the daemon, with its credentials; with "relay" it is the client, with its own; with "auto"
	// it is the daemon if it has a credential for the caller or anonymous access is enough, and
	// otherwise the client. Default "auto".
	ClientAuth string

	// CA (ca, an absolute path) is a file with PEM certificates that are trusted in addition to
	// those of the system. Default none.
	CA string

	// Cert and Key (cert and key, absolute paths, both or neither) are a PEM client certificate
	// and its key. The upstream at the host NAME is shown them, or the only upstream, on behalf
	// of trusted callers. Default none.
	Cert, Key string

	// Realms (realms, a list of origins as "https://sso.corp.example") are token servers that
	// may be sent the credential, in addition to the upstream's own. Default none.
	Realms []string

	// DialTimeout (dial_timeout) limits the time to connect, including TLS. Default 5 s.
	DialTimeout time.Duration

	// HeaderTimeout (header_timeout) limits the wait for the headers of a response on behalf of
	// an engine that can fall back to the registry. Default 25 s: containerd waits 30 s.
	HeaderTimeout time.Duration

	// Parallel (parallel, from 1 to 16) is how many connections to an upstream fetch one large
	// blob at most. With 1 there is only ever one. Default 8.
	Parallel int

	// Explicit reports whether the file or the environment says how the registry is reached: by its
	// upstreams, ca, cert or key. If not, it is reached as the engines reach it.
	Explicit bool

	// Named reports whether the file or the environment names this registry. sidemirror
	// probes its upstreams at the start then.
	Named bool
}

// Wildcard is the name of the registry that stands for every registry that is not named.
const Wildcard = "*"

// Default returns the configuration of an empty file and an empty environment.
func Default() *Config {
	c := &Config{
		File:            DefaultFile,
		Listen:          []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:305"), netip.MustParseAddrPort("[::1]:305")},
		ShutdownTimeout: 30 * time.Second,
		from:            make(map[string]origin),
	}
	for _, name := range []string{oci.DockerHub, "ghcr.io", "quay.io", "registry.k8s.io"} {
		c.Registries = append(c.Registries, NewRegistry(name))
	}
	c.Registries = append(c.Registries, NewRegistry(Wildcard))
	c.Credentials.Store = "/var/lib/sidemirror/credentials.json"
	c.Credentials.HelperDirs = []string{"/usr/local/bin", "/usr/bin"}
	c.Cache.Dir = "/var/cache/sidemirror"
	c.Cache.MaxSize = 20 << 30
	c.Cache.MinFree = Free{Percent: 10}
	c.Cache.MaxStale = 7 * 24 * time.Hour
	c.Cache.FreshnessTimeout = 5 * time.Second
	c.Cache.Prefetch = true
	c.Cache.Shared.Upload = true
	c.Cache.Shared.Queue = 4 << 30
	c.Outbound.AdoptProxy = true
	c.Trust.UIDs = []uint32{0}
	c.Trust.Units = []string{"default"}
	c.Guests.Port = 305
	c.Site = defaultSite()
	c.Engine.HandoverDir = "/run/sidemirror-hosts"
	c.Engine.Docker.Enabled = true
	c.Engine.Containerd.Enabled = true
	c.Engine.Podman.Enabled = true
	c.Engine.CRIO.Enabled = true
	c.Engine.BuildKit.Enabled = true
	c.Log.Level = "info"
	c.Log.Format = "auto"
	return c
}

// NewRegistry returns the registry called name with every other key at its default.
func NewRegistry(name string) Registry {
	r := Registry{Name: name, Enabled: true, ClientAuth: "auto", DialTimeout: 5 * time.Second, HeaderTimeout: 25 * time.Second, Parallel: 8}
	switch name {
	case Wildcard:
	case oci.DockerHub:
		r.Upstreams = []Upstream{NewUpstream(&url.URL{Scheme: "https", Host: oci.DockerHubUpstream})}
	default:
		r.Upstreams = []Upstream{NewUpstream(&url.URL{Scheme: "https", Host: name})}
	}
	return r
}

// turnOff takes "*" out of the registries served if it is not enabled.
func (c *Config) turnOff() {
	c.Registries = slices.DeleteFunc(c.Registries, func(r Registry) bool {
		if !r.Enabled {
			c.off = append(c.off, r)
		}
		return !r.Enabled
	})
}

// Contents returns the text of the file that c was read from; "" if there was none.
func (c *Config) Contents() string { return c.source.data }

// Files returns the certificates, keys and credentials of a shared store that c names.
func (c *Config) Files() []string {
	var files []string
	for _, file := range []string{c.Site.Cert, c.Site.Key, c.Site.ACMECA, c.Site.Users} {
		if file != "" {
			files = append(files, file)
		}
	}
	for _, r := range c.Registries {
		for _, file := range []string{r.CA, r.Cert, r.Key} {
			if file != "" {
				files = append(files, file)
			}
		}
	}
	for _, file := range []string{c.Cache.Shared.CA, c.Cache.Shared.Credentials} {
		if file != "" {
			files = append(files, file)
		}
	}
	return files
}

// ListensAlone reports whether the proxy listens at addresses that systemd does not open for it, so
// that it must run before anything connects.
func (c *Config) ListensAlone() bool {
	return len(c.Guests.Networks) > 0 || len(c.Site.Listen)+len(c.Site.HTTPListen)+len(c.Metrics.Listen) > 0
}

// RunsHelpers reports whether c names a credential helper or a plugin. A credential file may name
// helpers too.
func (c *Config) RunsHelpers() bool {
	return len(c.Credentials.Helpers) > 0 || c.Credentials.Plugins != ""
}

// Registry returns the registry called name, or nil if none is configured.
func (c *Config) Registry(name string) *Registry {
	for i := range c.Registries {
		if c.Registries[i].Name == name {
			return &c.Registries[i]
		}
	}
	return nil
}
