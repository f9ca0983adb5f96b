package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
	"github.com/sidemirror/sidemirror/internal/spelling"
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
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = strconv.Quote(w)
		}
		hint := "write one of " + strings.Join(quoted, ", ")
		if near := nearestWord(text, words); near != "" {
			hint = fmt.Sprintf("write %q; the choices are %s", near, strings.Join(quoted, ", "))
		}
		return wrong(quote(text)+" is not a choice", hint)
	}
}

// nearestWord returns the word that text probably means: one that is spelt in almost the same way, or
// the only one that begins as it does. It returns "" if there is none.
func nearestWord(text string, words []string) string {
	if near := spelling.Nearest(text, words); near != "" {
		return near
	}
	var found []string
	for _, w := range words {
		if lower := strings.ToLower(text); lower != "" && (strings.HasPrefix(lower, w) || strings.HasPrefix(w, lower)) {
			found = append(found, w)
		}
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

func checkPath(text string) error {
	switch {
	case text == "":
		return wrong("the path is empty", "write an absolute path, or remove the key")
	case strings.ContainsRune(text, 0):
		return wrong("the path contains a NUL", "write an absolute path")
	case !filepath.IsAbs(text):
		return wrong(quote(text)+" is a relative path", "write an absolute path: the daemon has no folder that others could be relative to")
	}
	return nil
}

// checkPathOrNone accepts a path, or "" for none.
func checkPathOrNone(text string) error {
	if text == "" {
		return nil
	}
	return checkPath(text)
}

// maxParallel limits the connections of one blob, as upstream limits those to one host.
const maxParallel = 16

func parseParallel(text string) (int, error) {
	n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 0, 64)
	if err != nil || n < 1 || n > maxParallel {
		return 0, wrong(quote(text)+" is out of range", fmt.Sprintf("write a number from 1, which is a single connection, to %d", maxParallel))
	}
	return int(n), nil
}

func parseUID(text string) (uint32, error) {
	n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 0, 64)
	// 2^32-1 is the kernel's "no user" ((uid_t)-1).
	if err != nil || n < 0 || n >= 1<<32-1 {
		return 0, wrong(quote(text)+" is not a user id", "write a number from 0 to 4294967294")
	}
	return uint32(n), nil
}

func parseListen(text string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddrPort(text)
	if err == nil {
		if addr.Port() == 0 {
			return addr, wrong("port 0 means another port at each start, which no engine could know", "write a port from 1 to 65535")
		}
		return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), nil
	}
	host, port, splitErr := net.SplitHostPort(text)
	switch {
	case splitErr == nil && host == "":
		return addr, wrong(quote(text)+" has no address", fmt.Sprintf(`write "127.0.0.1:%s" for this host only, or "0.0.0.0:%s" for the whole network`, port, port))
	case splitErr == nil && strings.EqualFold(host, "localhost"):
		return addr, wrong(quote(text)+" has a name, not an address", fmt.Sprintf(`write "127.0.0.1:%s", "[::1]:%s" or both`, port, port))
	case splitErr == nil && net.ParseIP(host) != nil:
		return addr, wrong(quote(text)+" has no port that exists", "write a port from 1 to 65535")
	case net.ParseIP(text) != nil:
		return addr, wrong(quote(text)+" has no port", fmt.Sprintf("write %q", net.JoinHostPort(text, "305")))
	}
	return addr, wrong(quote(text)+" is not an address to listen on", `write IP:PORT, as "127.0.0.1:305" or "[::1]:305"`)
}

// parseURL reads an http or https URL, with or without a path. It passes on no error of
// url.Parse, which quotes the URL and with it a password.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err == nil && u.User != nil, strings.Contains(text, "@") && (err != nil || u.Host == ""):
		return nil, wrong("the URL contains a user or a password", `remove them, and run "sidemirror login"`)
	case err != nil || (u.Scheme != "http" && u.Scheme != "https"):
		if bare, bareErr := url.Parse("https://" + text); bareErr == nil && !strings.Contains(text, "://") && validHostPort(bare.Host) {
			return nil, wrong(quote(text)+" has no scheme", fmt.Sprintf("write %q", "https://"+text))
		}
		return nil, wrong(quote(text)+" is not an http or https URL", `write one such as "https://registry.example"`)
	case !validHostPort(u.Host):
		return nil, wrong(quote(text)+" has no valid host", `write a URL such as "https://registry.example:5000"`)
	case u.Query().Has("ns"):
		return nil, wrong(quote(withoutQuery(text))+" has a query", fmt.Sprintf(`write "ns+%s://%s" for a mirror that takes ns`, u.Scheme, u.Host))
	case u.RawQuery != "" || u.ForceQuery:
		return nil, wrong(quote(withoutQuery(text))+" has a query", `remove the "?" and what follows it`)
	case strings.Contains(text, "#"):
		return nil, wrong(quote(text)+" has a fragment", `remove the "#" and what follows it`)
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

// withoutQuery removes what may be a signature.
func withoutQuery(text string) string {
	before, _, _ := strings.Cut(text, "?")
	return before + "?…"
}

func checkRealm(text string) error {
	u, err := parseURL(text)
	if err != nil {
		return err
	}
	if u.Path != "" && u.Path != "/" {
		return wrong(quote(text)+" has a path, and a realm is an origin", fmt.Sprintf("write %q", u.Scheme+"://"+u.Host))
	}
	return nil
}

// hostName is a name as in RFC 1123, or with the underscore that names of containers have.
var hostName = lazyregexp.New(`^(?i:[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)(\.(?i:[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?))*$`)

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
	return len(host) <= 253 && hostName().MatchString(host)
}

func checkHost(text string) error {
	u := url.URL{Host: text}
	addr, addrErr := netip.ParseAddr(strings.Trim(text, "[]"))
	switch {
	case strings.Contains(text, "://"):
		hint := "write only its host name"
		if name := hostOfURL(text); name != "" {
			hint = fmt.Sprintf("write %q", name)
		}
		return wrong(quote(text)+" is a URL", hint)
	case addrErr == nil && addr.IsLoopback(), strings.EqualFold(u.Hostname(), "localhost"):
		return wrong(quote(text)+" always means sidemirror itself", "write a name that stands for this registry alone")
	case addrErr == nil:
		return wrong(quote(text)+" is an address", "write a host name")
	case u.Port() != "":
		return wrong(quote(text)+" has a port, and Host headers are compared without it", fmt.Sprintf("write %q", u.Hostname()))
	case len(text) > 253 || !hostName().MatchString(text):
		return wrong(quote(text)+" is not a host name", `write one such as "docker.example.lan"`)
	case text != strings.ToLower(text):
		return wrong(quote(text)+" has capitals", fmt.Sprintf("write %q", strings.ToLower(text)))
	}
	return nil
}

// checkRegistryName accepts what a reference can name as its registry.
func checkRegistryName(name string) error {
	if name == Wildcard {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(name + "/repository")
	switch {
	case name != oci.DockerHub && oci.CanonicalRegistry(name) == oci.DockerHub:
		return wrong(quote(name)+" is a host of Docker Hub", fmt.Sprintf("write %q", oci.DockerHub))
	case strings.Contains(name, "://"):
		hint := `write the name that references begin with, as "registry.example:5000"`
		if _, rest, _ := strings.Cut(name, "://"); validHostPort(beforeSlash(rest)) {
			hint = fmt.Sprintf("write the name that references begin with, as %q", oci.CanonicalRegistry(beforeSlash(rest)))
		}
		return wrong(quote(name)+" is a URL", hint)
	case strings.Contains(name, "/"):
		hint := "write only the name of the registry"
		if host := beforeSlash(name); validHostPort(host) {
			hint = fmt.Sprintf("write only the name of the registry: %q", oci.CanonicalRegistry(host))
		}
		return wrong(quote(name)+" has a path", hint)
	case name != strings.ToLower(name):
		return wrong(quote(name)+" has capitals", fmt.Sprintf("write %q", strings.ToLower(name)))
	case err != nil || reference.Domain(named) != name || !validHostPort(name):
		return wrong(quote(name)+" is not the name of a registry", `write a name with a dot or a port, or localhost, as "ghcr.io" or "registry.example:5000"`)
	}
	return nil
}

// hostOfURL returns the host name in a URL that was written in the place of one; "" if it is not a name.
func hostOfURL(text string) string {
	u, err := url.Parse(text)
	if err != nil || checkHost(u.Hostname()) != nil {
		return ""
	}
	return u.Hostname()
}

func beforeSlash(text string) string {
	before, _, _ := strings.Cut(text, "/")
	return before
}
