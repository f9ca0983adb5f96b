package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/secret"
)

// key is one key of the configuration. field returns a pointer to what it sets.
type key[T any] struct {
	name  string
	field func(*T) any
	// check, if not nil, refuses a text with a hint.
	check func(text string) error
}

// keys are the keys outside [registry], in the order of "config show".
var keys = []key[Config]{
	{name: "listen", field: func(c *Config) any { return &c.Listen }},
	{name: "shutdown_timeout", field: func(c *Config) any { return &c.ShutdownTimeout }},
	{name: "credentials.files", field: func(c *Config) any { return &c.Credentials.Files }, check: checkPath},
	{name: "credentials.store", field: func(c *Config) any { return &c.Credentials.Store }, check: checkPath},
	{name: "credentials.helpers", field: func(c *Config) any { return &c.Credentials.Helpers }, check: checkHelper},
	{name: "credentials.helper_dirs", field: func(c *Config) any { return &c.Credentials.HelperDirs }, check: checkPath},
	{name: "credentials.helper_environment", field: func(c *Config) any { return &c.Credentials.HelperEnvironment }, check: checkVariable},
	{name: "credentials.plugins", field: func(c *Config) any { return &c.Credentials.Plugins }, check: checkPathOrNone},
	{name: "credentials.plugin_dir", field: func(c *Config) any { return &c.Credentials.PluginDir }, check: checkPathOrNone},
	{name: "cache.dir", field: func(c *Config) any { return &c.Cache.Dir }, check: checkPathOrNone},
	{name: "cache.max_size", field: func(c *Config) any { return &c.Cache.MaxSize }},
	{name: "cache.min_free", field: func(c *Config) any { return &c.Cache.MinFree }},
	{name: "cache.max_stale", field: func(c *Config) any { return (*age)(&c.Cache.MaxStale) }},
	{name: "cache.tag_ttl", field: func(c *Config) any { return (*age)(&c.Cache.TagTTL) }},
	{name: "cache.freshness_timeout", field: func(c *Config) any { return &c.Cache.FreshnessTimeout }, check: checkNotZero},
	{name: "cache.prefetch", field: func(c *Config) any { return &c.Cache.Prefetch }},
	{name: sharedURL, field: func(c *Config) any { return &c.Cache.Shared.URL }, check: checkBucket},
	{name: "cache.shared.private", field: func(c *Config) any { return &c.Cache.Shared.Private }},
	{name: "cache.shared.credentials", field: func(c *Config) any { return &c.Cache.Shared.Credentials }, check: checkPathOrNone},
	{name: "cache.shared.ca", field: func(c *Config) any { return &c.Cache.Shared.CA }, check: checkPathOrNone},
	{name: "cache.shared.upload", field: func(c *Config) any { return &c.Cache.Shared.Upload }},
	{name: "cache.shared.queue", field: func(c *Config) any { return &c.Cache.Shared.Queue }},
	{name: "outbound.http_proxy", field: func(c *Config) any { return &c.Outbound.HTTPProxy }},
	{name: "outbound.https_proxy", field: func(c *Config) any { return &c.Outbound.HTTPSProxy }},
	{name: "outbound.no_proxy", field: func(c *Config) any { return &c.Outbound.NoProxy }, check: checkNoProxy},
	{name: "outbound.adopt_proxy", field: func(c *Config) any { return &c.Outbound.AdoptProxy }},
	{name: "trust.uids", field: func(c *Config) any { return &c.Trust.UIDs }},
	{name: "trust.units", field: func(c *Config) any { return &c.Trust.Units }, check: checkUnit},
	{name: "guests.networks", field: func(c *Config) any { return &c.Guests.Networks }, check: checkNetwork},
	{name: "guests.port", field: func(c *Config) any { return &c.Guests.Port }},
	{name: "guests.logins", field: func(c *Config) any { return &c.Guests.Logins }, check: checkLentLogin},
	{name: "site.listen", field: func(c *Config) any { return &c.Site.Listen }},
	{name: "site.http_listen", field: func(c *Config) any { return &c.Site.HTTPListen }},
	{name: "site.tls", field: func(c *Config) any { return &c.Site.TLS }, check: oneOf("acme", "files", "off")},
	{name: "site.cert", field: func(c *Config) any { return &c.Site.Cert }, check: checkPathOrNone},
	{name: "site.key", field: func(c *Config) any { return &c.Site.Key }, check: checkPathOrNone},
	{name: "site.acme_directory", field: func(c *Config) any { return &c.Site.ACMEDirectory }, check: checkDirectory},
	{name: "site.acme_ca", field: func(c *Config) any { return &c.Site.ACMECA }, check: checkPathOrNone},
	{name: "site.acme_email", field: func(c *Config) any { return &c.Site.ACMEEmail }, check: checkEmail},
	{name: "site.acme_accept_terms", field: func(c *Config) any { return &c.Site.ACMEAcceptTerms }},
	{name: "site.allow", field: func(c *Config) any { return &c.Site.Allow }},
	{name: "site.users", field: func(c *Config) any { return &c.Site.Users }, check: checkPathOrNone},
	{name: "site.trusted_proxies", field: func(c *Config) any { return &c.Site.TrustedProxies }},
	{name: "site.logins", field: func(c *Config) any { return &c.Site.Logins }, check: checkLentLogin},
	{name: "site.max_connections", field: func(c *Config) any { return (*limit)(&c.Site.MaxConnections) }},
	{name: "site.max_requests", field: func(c *Config) any { return (*limit)(&c.Site.MaxRequests) }},
	{name: "site.max_fills", field: func(c *Config) any { return (*limit)(&c.Site.MaxFills) }},
	{name: "site.rate", field: func(c *Config) any { return (*rate)(&c.Site.Rate) }},
	{name: "page.show_images", field: func(c *Config) any { return &c.Page.ShowImages }},
	{name: "engine.adopt_client_keys", field: func(c *Config) any { return &c.Engine.AdoptClientKeys }},
	{name: "engine.handover_dir", field: func(c *Config) any { return &c.Engine.HandoverDir }, check: checkPathOrNone},
	{name: "metrics.listen", field: func(c *Config) any { return &c.Metrics.Listen }},
	{name: "engine.docker.enabled", field: func(c *Config) any { return &c.Engine.Docker.Enabled }},
	{name: "engine.containerd.enabled", field: func(c *Config) any { return &c.Engine.Containerd.Enabled }},
	{name: "engine.containerd.restart", field: func(c *Config) any { return &c.Engine.Containerd.Restart }},
	{name: "engine.podman.enabled", field: func(c *Config) any { return &c.Engine.Podman.Enabled }},
	{name: "engine.crio.enabled", field: func(c *Config) any { return &c.Engine.CRIO.Enabled }},
	{name: "engine.buildkit.enabled", field: func(c *Config) any { return &c.Engine.BuildKit.Enabled }},
	{name: "engine.buildkit.restart", field: func(c *Config) any { return &c.Engine.BuildKit.Restart }},
	{name: "log.level", field: func(c *Config) any { return &c.Log.Level }, check: oneOf(logLevels...)},
	{name: "log.format", field: func(c *Config) any { return &c.Log.Format }, check: oneOf(logFormats...)},
}

// registryKeys are those of [registry."NAME"].
var registryKeys = []key[Registry]{
	{name: "enabled", field: func(r *Registry) any { return &r.Enabled }},
	{name: "upstreams", field: func(r *Registry) any { return &r.Upstreams }},
	{name: "hosts", field: func(r *Registry) any { return &r.Hosts }, check: checkHost},
	{name: "client_auth", field: func(r *Registry) any { return &r.ClientAuth }, check: oneOf("auto", "daemon", "relay")},
	{name: "ca", field: func(r *Registry) any { return &r.CA }, check: checkPath},
	{name: "cert", field: func(r *Registry) any { return &r.Cert }, check: checkPath},
	{name: "key", field: func(r *Registry) any { return &r.Key }, check: checkPath},
	{name: "realms", field: func(r *Registry) any { return &r.Realms }, check: checkRealm},
	{name: "dial_timeout", field: func(r *Registry) any { return &r.DialTimeout }, check: checkNotZero},
	{name: "header_timeout", field: func(r *Registry) any { return &r.HeaderTimeout }, check: checkNotZero},
	{name: "parallel", field: func(r *Registry) any { return &r.Parallel }},
}

// isKeyName reports whether the last part of a dotted key is the name of a known key.
func isKeyName(dotted string) bool {
	name := strings.Trim(dotted[strings.LastIndexByte(dotted, '.')+1:], " \t\"'")
	return slices.ContainsFunc(registryKeys, func(k key[Registry]) bool { return k.name == name }) ||
		slices.ContainsFunc(keys, func(k key[Config]) bool {
			return k.name[strings.LastIndexByte(k.name, '.')+1:] == name
		})
}

// value is a value of the file, or of a variable made to look like one.
type value struct {
	kind   unstable.Kind
	text   string  // of a scalar: strings unquoted, others as written
	elems  []value // of an array
	offset int     // where it starts, or its key if the parser does not tell
}

// wrongValue is what is wrong with a value, and where in it.
type wrongValue struct {
	offset     int
	text, hint string
}

// set assigns v to what field points at.
func set(field any, v value, check func(string) error) *wrongValue {
	switch p := field.(type) {
	case *string:
		return setText(p, v, `a string in quotes`, checked(check))
	case *secret.Secret:
		return setText(p, v, `a URL in quotes, as "http://proxy.example:3128"`, parseProxy)
	case *bool:
		return setScalar(p, v, unstable.Bool, "true or false", strconv.ParseBool)
	case *int:
		return setScalar(p, v, unstable.Integer, "a whole number, as 8", parseParallel)
	case *limit:
		return setScalar(p, v, unstable.Integer, "a whole number, as 100", parseLimit)
	case *uint16:
		return setScalar(p, v, unstable.Integer, "a port, as 305", parsePort)
	case *time.Duration:
		return setText(p, v, `a duration in quotes, as "30s" or "2m"`, func(text string) (time.Duration, error) {
			return parseDuration(text, check)
		})
	case *age:
		return setText(p, v, `a duration in quotes, as "30m" or "168h"`, parseAge)
	case *Size:
		return setText(p, v, `a size in quotes, as "20GiB"`, parseMaxSize)
	case *rate:
		return setText(p, v, `a size in quotes, as "20MiB"`, parseRate)
	case *Free:
		return setText(p, v, `a size or a part of the disk in quotes, as "10%" or "5GiB"`, parseFree)
	case *[]string:
		return setList(p, v, unstable.String, "a list of strings", checked(check))
	case *[]netip.AddrPort:
		return setList(p, v, unstable.String, `a list of addresses, as ["127.0.0.1:305"]`, parseListen)
	case *[]netip.Prefix:
		return setList(p, v, unstable.String, `a list of networks, as ["10.0.0.0/8"]`, parsePrefix)
	case *[]Upstream:
		return setList(p, v, unstable.String, `a list of URLs, as ["https://registry.example"]`, parseUpstream)
	case *[]uint32:
		return setList(p, v, unstable.Integer, "a list of user ids, as [0, 1000]", parseUID)
	}
	panic(fmt.Sprintf("config: a key of type %T", field))
}

func checked(check func(string) error) func(string) (string, error) {
	return func(text string) (string, error) {
		if check == nil {
			return text, nil
		}
		return text, check(text)
	}
}

func setText[T any](p *T, v value, want string, parse func(string) (T, error)) *wrongValue {
	return setScalar(p, v, unstable.String, want, parse)
}

func setScalar[T any](p *T, v value, kind unstable.Kind, want string, parse func(string) (T, error)) *wrongValue {
	if v.kind != kind {
		return &wrongValue{v.offset, "the value is " + article(v.kind), "write " + want}
	}
	parsed, err := parse(v.text)
	if err != nil {
		return &wrongValue{v.offset, err.Error(), problem.Hint(err)}
	}
	*p = parsed
	return nil
}

// maxElements limits a list: each element has a listener, a connection pool or a watch.
const maxElements = 256

func setList[T any](p *[]T, v value, kind unstable.Kind, want string, parse func(string) (T, error)) *wrongValue {
	if v.kind != unstable.Array {
		return &wrongValue{v.offset, "the value is " + article(v.kind), "write " + want}
	}
	if len(v.elems) > maxElements {
		return &wrongValue{v.offset, fmt.Sprintf("the list has %d elements", len(v.elems)), fmt.Sprintf("write at most %d", maxElements)}
	}
	list := make([]T, len(v.elems))
	seen := make(map[string]bool)
	for i, elem := range v.elems {
		if f := setScalar(&list[i], elem, kind, want, parse); f != nil {
			return f
		}
		if text := fmt.Sprint(list[i]); seen[text] {
			return &wrongValue{elem.offset, quote(elem.text) + " occurs twice", "remove one"}
		} else {
			seen[text] = true
		}
	}
	*p = list
	return nil
}

func article(kind unstable.Kind) string {
	switch kind {
	case unstable.String:
		return "a string"
	case unstable.Bool:
		return "a boolean"
	case unstable.Integer:
		return "a whole number"
	case unstable.Float:
		return "a number"
	case unstable.Array:
		return "a list"
	case unstable.InlineTable, unstable.Table:
		return "a table"
	case unstable.ArrayTable:
		return "a list of tables"
	}
	return "a date or time"
}
