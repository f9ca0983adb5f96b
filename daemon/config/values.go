package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

var (
	logLevels  = []string{"error", "warn", "info", "debug", "trace"}
	logFormats = []string{"auto", "text", "json"}
)

func oneOf(words ...string) func(string) error {
	return func(text string) error {
		if slices.Contains(words, text) {
			return nil
		}
		said := make([]string, len(words))
		for i, w := range words {
			said[i] = strconv.Quote(w)
		}
		return fmt.Errorf("%s is not one of %s", quote(text), strings.Join(said, ", "))
	}
}

func checkPath(text string) error {
	switch {
	case text == "":
		return errors.New("is empty; write an absolute path or leave the key out")
	case strings.ContainsRune(text, 0):
		return errors.New("a path has no NUL in it")
	case !filepath.IsAbs(text):
		return fmt.Errorf("%s is a relative path, and the daemon has no folder that it would be relative to; write an absolute one", quote(text))
	}
	return nil
}

// checkPathOrNone takes a path, or "" for nothing.
func checkPathOrNone(text string) error {
	if text == "" {
		return nil
	}
	return checkPath(text)
}

// longestDuration bounds every duration: longer ones are slips of the unit.
const longestDuration = time.Hour

func parseDuration(text string, check func(string) error) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf(`%s is not a duration; write a number and a unit, as "500ms", "30s" or "2m"`, quote(text))
	case d < 0 || d > longestDuration:
		return 0, fmt.Errorf("%s is out of range; durations go from 0s to %v", quote(text), longestDuration)
	case check != nil:
		return d, check(d.String())
	}
	return d, nil
}

// checkNotZero refuses a deadline of nothing, with which no upstream could be reached.
func checkNotZero(text string) error {
	if text == "0s" {
		return errors.New("must be more than 0s; leave the key out for the default")
	}
	return nil
}

func parseUID(text string) (uint32, error) {
	n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 0, 64)
	// 2^32-1 is the kernel's "no user" ((uid_t)-1) and never anybody's.
	if err != nil || n < 0 || n >= 1<<32-1 {
		return 0, fmt.Errorf("%s is not a user id; they go from 0 to 4294967294", quote(text))
	}
	return uint32(n), nil
}

func parseListen(text string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddrPort(text)
	if err == nil {
		if addr.Port() == 0 {
			return addr, errors.New("port 0 would be another one at each start, which no engine could be told; write a port from 1 to 65535")
		}
		return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), nil
	}
	const want = `write IP:PORT, as "127.0.0.1:305" or "[::1]:305"`
	host, port, splitErr := net.SplitHostPort(text)
	switch {
	case splitErr == nil && host == "":
		return addr, fmt.Errorf(`%s has no address; write "127.0.0.1:%s" for this host only, or "0.0.0.0:%s" if all the network is meant`, quote(text), port, port)
	case splitErr == nil && strings.EqualFold(host, "localhost"):
		return addr, fmt.Errorf(`%s has a name, not an address; write "127.0.0.1:%s", "[::1]:%s" or both`, quote(text), port, port)
	case net.ParseIP(text) != nil:
		return addr, fmt.Errorf(`%s has no port; write %q`, quote(text), net.JoinHostPort(text, "305"))
	}
	return addr, fmt.Errorf("%s is not an address to listen on; %s", quote(text), want)
}

// parseUpstream takes http and https URLs, with or without a path. No error of
// url.Parse is passed on: it quotes the URL, and with it a password.
func parseUpstream(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err == nil && u.User != nil, strings.Contains(text, "@") && (err != nil || u.Host == ""):
		return nil, errors.New("a URL with a user or password in it; leave them out and run \"sidemirror login\"")
	case err != nil || (u.Scheme != "http" && u.Scheme != "https"):
		if bare, bareErr := url.Parse("https://" + text); bareErr == nil && !strings.Contains(text, "://") && validHostPort(bare.Host) {
			return nil, fmt.Errorf("%s has no scheme; write %q", quote(text), "https://"+text)
		}
		return nil, fmt.Errorf(`%s is not an http or https URL; write one as "https://registry.example"`, quote(text))
	case !validHostPort(u.Host):
		return nil, fmt.Errorf(`%s has no host, or one that cannot be; write it as "https://registry.example:5000"`, quote(text))
	case u.RawQuery != "" || u.ForceQuery:
		return nil, fmt.Errorf("%s has a query; an upstream takes none, leave out what follows the \"?\"", quote(withoutQuery(text)))
	case strings.Contains(text, "#"):
		return nil, fmt.Errorf("%s has a fragment; leave out what follows the \"#\"", quote(text))
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

// withoutQuery keeps what may be a signature out of the error.
func withoutQuery(text string) string {
	before, _, _ := strings.Cut(text, "?")
	return before + "?…"
}

func checkRealm(text string) error {
	u, err := parseUpstream(text)
	if err != nil {
		return err
	}
	if u.Path != "" && u.Path != "/" {
		return fmt.Errorf("%s has a path; a realm is an origin, write %q", quote(text), u.Scheme+"://"+u.Host)
	}
	return nil
}

// hostName is RFC 1123's, with the underscore that container names have.
var hostName = regexp.MustCompile(`^(?i:[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)(\.(?i:[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?))*$`)

func validHostPort(hostport string) bool {
	u := url.URL{Host: hostport}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false
		}
	} else if strings.HasSuffix(hostport, ":") {
		return false
	}
	host := u.Hostname()
	if strings.HasPrefix(hostport, "[") {
		addr, err := netip.ParseAddr(host)
		return err == nil && addr.Is6()
	}
	return len(host) <= 253 && hostName.MatchString(host)
}

func checkHost(text string) error {
	u := url.URL{Host: text}
	addr, addrErr := netip.ParseAddr(strings.Trim(text, "[]"))
	switch {
	case strings.Contains(text, "://"):
		return fmt.Errorf("%s is a URL; write its host name alone", quote(text))
	case addrErr == nil && addr.IsLoopback(), strings.EqualFold(u.Hostname(), "localhost"):
		return fmt.Errorf("%s means sidemirror itself and cannot stand for a registry", quote(text))
	case addrErr == nil:
		return fmt.Errorf("%s is an address; write a host name", quote(text))
	case u.Port() != "":
		return fmt.Errorf("%s has a port, and a Host header is compared without it; write %q", quote(text), u.Hostname())
	case len(text) > 253 || !hostName.MatchString(text):
		return fmt.Errorf(`%s is not a host name; write one as "docker.example.lan"`, quote(text))
	case text != strings.ToLower(text):
		return fmt.Errorf("%s has capitals; write %q", quote(text), strings.ToLower(text))
	}
	return nil
}

// checkRegistryName takes what a reference can name as its registry.
func checkRegistryName(name string) error {
	if name == Wildcard {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(name + "/repository")
	switch {
	case name != oci.DockerHub && oci.CanonicalRegistry(name) == oci.DockerHub:
		return fmt.Errorf("%s is Docker Hub, whose registry is called %q", quote(name), oci.DockerHub)
	case strings.Contains(name, "://"):
		return fmt.Errorf(`%s is a URL; a registry has the name that references begin with, as "registry.example:5000"`, quote(name))
	case strings.Contains(name, "/"):
		return fmt.Errorf("%s has a path; only the registry itself is named here", quote(name))
	case name != strings.ToLower(name):
		return fmt.Errorf("%s has capitals; write %q", quote(name), strings.ToLower(name))
	case err != nil || reference.Domain(named) != name || !validHostPort(name):
		return fmt.Errorf(`%s is not a registry's name; it has a dot or a port or is localhost, as "ghcr.io" or "registry.example:5000"`, quote(name))
	}
	return nil
}
