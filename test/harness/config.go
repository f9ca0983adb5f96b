package harness

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Options are what a daemon is started with. The zero value serves the built-in
// registries on a free port of 127.0.0.1, without credentials, and trusts the
// user who runs the tests.
type Options struct {
	// Registries become [registry."NAME"] tables.
	Registries []Registry

	// Logins maps a registry, or a registry and a namespace ("r.test/team"), to
	// "user:password". They are written into a docker config.json (0600) that the
	// configuration names, each for the hosts of the registry's upstreams. No password of it
	// may ever show in the log.
	Logins map[string]string

	// IdentityTokens maps a registry to an OAuth2 refresh token, likewise.
	IdentityTokens map[string]string

	// TrustUIDs, if nil, is the user who runs the tests. If empty, no user is trusted.
	TrustUIDs []uint32

	// Env is added to PATH and HOME, which is all that the daemon gets otherwise.
	Env []string

	// UID, if not 0, is the user that the daemon runs as; needs root.
	UID uint32

	// Listen, if nil, is one free port of 127.0.0.1.
	Listen []string

	// Hosts, if not empty, is what the daemon finds in /etc/hosts, in a mount
	// namespace of its own; it skips the test where we are not root.
	Hosts string

	// Cache, if not empty, is the folder that the daemon keeps what was pulled in. The
	// default is one of its own; "none" keeps nothing.
	Cache string

	// Unnamed serves registries that no table names, as the default configuration does.
	Unnamed bool

	// Extra is appended to the configuration as it is.
	Extra string

	// Secrets are more strings that must not show in the log.
	Secrets []string
}

// Registry is one [registry."NAME"] table. Fields left zero are left out.
type Registry struct {
	Name                       string
	Upstreams, Hosts, Realms   []string
	Relay                      bool
	ClientAuth                 string // "" is the default, or "relay" with Relay
	CA, Cert, Key              string
	DialTimeout, HeaderTimeout time.Duration
	Parallel                   int // 0: the default
}

// toml is the configuration file that o stands for.
func (o Options) toml(listen []string, credentials, store, cache string) string {
	var b strings.Builder
	// Shorter than the harness's patience, so that an answer under way cannot hold up Stop.
	fmt.Fprintf(&b, "listen = %s\nshutdown_timeout = \"10s\"\n", list(listen))
	fmt.Fprintf(&b, "\n[credentials]\nstore = %s\n", strconv.Quote(store))
	if credentials != "" {
		fmt.Fprintf(&b, "files = [%s]\n", strconv.Quote(credentials))
	}
	switch o.Cache {
	case "":
	case "none":
		cache = ""
	default:
		cache = o.Cache
	}
	fmt.Fprintf(&b, "\n[cache]\ndir = %s\nmin_free = \"0B\"\n", strconv.Quote(cache))
	uids := o.TrustUIDs
	if uids == nil {
		uids = []uint32{uint32(os.Getuid())}
	}
	// The machine that runs the tests may start them in any unit.
	fmt.Fprintf(&b, "\n[trust]\nunits = [\"*\"]\nuids = %s\n", strings.ReplaceAll(fmt.Sprint(uids), " ", ", "))
	b.WriteString("\n[log]\nlevel = \"debug\"\n")
	for _, r := range o.Registries {
		r.toml(&b)
	}
	if !o.Unnamed {
		b.WriteString("\n[registry.\"*\"]\nenabled = false\n")
	}
	b.WriteString(o.Extra)
	return b.String()
}

func (r Registry) toml(b *strings.Builder) {
	fmt.Fprintf(b, "\n[registry.%s]\n", strconv.Quote(r.Name))
	for _, l := range []struct {
		key    string
		values []string
	}{{"upstreams", r.Upstreams}, {"hosts", r.Hosts}, {"realms", r.Realms}} {
		if l.values != nil {
			fmt.Fprintf(b, "%s = %s\n", l.key, list(l.values))
		}
	}
	if r.Relay {
		r.ClientAuth = "relay"
	}
	if r.ClientAuth != "" {
		fmt.Fprintf(b, "client_auth = %q\n", r.ClientAuth)
	}
	for _, s := range []struct{ key, value string }{{"ca", r.CA}, {"cert", r.Cert}, {"key", r.Key}} {
		if s.value != "" {
			fmt.Fprintf(b, "%s = %s\n", s.key, strconv.Quote(s.value))
		}
	}
	for _, d := range []struct {
		key   string
		value time.Duration
	}{{"dial_timeout", r.DialTimeout}, {"header_timeout", r.HeaderTimeout}} {
		if d.value != 0 {
			fmt.Fprintf(b, "%s = %s\n", d.key, strconv.Quote(d.value.String()))
		}
	}
	if r.Parallel != 0 {
		fmt.Fprintf(b, "parallel = %d\n", r.Parallel)
	}
}

// list is a TOML array of strings.
func list(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = strconv.Quote(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// dockerConfig is the config.json that o's logins stand for, nil if it has none.
func (o Options) dockerConfig(tb testing.TB) []byte {
	tb.Helper()
	if len(o.Logins) == 0 && len(o.IdentityTokens) == 0 {
		return nil
	}
	type entry struct {
		Auth          string `json:"auth,omitempty"`
		IdentityToken string `json:"identitytoken,omitempty"`
	}
	auths := map[string]entry{}
	for key, login := range o.Logins {
		for _, origin := range o.origins(tb, key) {
			auths[origin] = entry{Auth: base64.StdEncoding.EncodeToString([]byte(login))}
		}
	}
	for key, token := range o.IdentityTokens {
		for _, origin := range o.origins(tb, key) {
			e := auths[origin]
			e.IdentityToken = token
			auths[origin] = e
		}
	}
	data, err := json.MarshalIndent(map[string]any{"auths": auths}, "", "\t")
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// origins returns the keys under which a login for a registry is stored: a login belongs to the
// host that it is sent to, which for a registry of a test is that of its upstreams.
func (o Options) origins(tb testing.TB, key string) []string {
	tb.Helper()
	name, namespace, _ := strings.Cut(key, "/")
	var origins []string
	for _, r := range o.Registries {
		if r.Name != name {
			continue
		}
		for _, upstream := range r.Upstreams {
			u, err := url.Parse(upstream)
			if err != nil {
				tb.Fatal(err)
			}
			if u.Host == name {
				return []string{key}
			}
			origins = append(origins, strings.TrimSuffix(u.Host+"/"+namespace, "/"))
		}
	}
	if origins == nil {
		return []string{key}
	}
	return origins
}

// secrets are the strings that must not show in the log: a password, a
// base64 "user:password", an identity token.
func (o Options) secrets() []string {
	secrets := append([]string(nil), o.Secrets...)
	for _, login := range o.Logins {
		_, password, _ := strings.Cut(login, ":")
		secrets = append(secrets, password, base64.StdEncoding.EncodeToString([]byte(login)))
	}
	for _, token := range o.IdentityTokens {
		secrets = append(secrets, token)
	}
	return secrets
}

// writeFile replaces the file called name in its folder whole, as an editor that is careful does, so that a
// running daemon never reads half of it.
func (s *Sidemirror) writeFile(name string, data []byte, mode os.FileMode) string {
	s.tb.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path+".new", data, mode); err != nil {
		s.tb.Fatal(err)
	}
	if s.options.UID != 0 {
		if err := os.Chown(path+".new", int(s.options.UID), -1); err != nil {
			s.tb.Fatal(err)
		}
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.tb.Fatal(err)
	}
	return path
}
