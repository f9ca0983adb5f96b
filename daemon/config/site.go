package config

import (
	"fmt"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// LetsEncrypt is the directory of the ACME server that issues certificates if no other is named.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// Site is the mirror on a domain of its own, for other hosts: the hosts of the registries are its
// names. Its callers are always anonymous.
type Site struct {
	// Listen (listen, a list of "IP:PORT") are the addresses served, in addition to the sockets that
	// systemd hands over under the name "site". Without either there is no site. Default none.
	Listen []netip.AddrPort

	// HTTPListen (http_listen, a list of "IP:PORT") are addresses of plain HTTP at which requests are
	// redirected to https, and the challenges of an ACME server are responded to. Default none.
	HTTPListen []netip.AddrPort

	// TLS (tls) says where the certificate comes from: with "acme" from an ACME server, with "files"
	// from Cert and Key. With "off" there is none: a reverse proxy has it. Default "files" if Cert is
	// set, and otherwise "acme".
	TLS string

	// Cert and Key (cert and key, absolute paths) are a PEM certificate with its chain, and its key.
	// They are read again when they change. Default none.
	Cert, Key string

	// ACMEDirectory (acme_directory, a URL) is the directory of the ACME server. Default that of Let's
	// Encrypt.
	ACMEDirectory string

	// ACMECA (acme_ca, an absolute path) is a file with PEM certificates that are trusted for the ACME
	// server, in addition to those of the system. Default none.
	ACMECA string

	// ACMEEmail (acme_email, an address) is where the ACME server can reach the administrator. Default
	// none.
	ACMEEmail string

	// ACMEAcceptTerms (acme_accept_terms) says that the administrator agrees to the terms of the ACME
	// server, which issues no certificate otherwise. Default false.
	ACMEAcceptTerms bool

	// Allow (allow, a list of networks as "10.0.0.0/8") are the networks whose hosts are served. Default
	// the private networks that this host is in.
	Allow []netip.Prefix

	// Users (users, an absolute path) is a file of htpasswd with bcrypt hashes. If it is set, callers
	// must log in as one of its users. Default none.
	Users string

	// TrustedProxies (trusted_proxies, a list of networks) are the reverse proxies whose headers say who
	// asks, and for which URL. Default none.
	TrustedProxies []netip.Prefix

	// Logins (logins, a list of names of registries) are the registries whose login sidemirror may use
	// for callers, to have its rate limit, and only for images that the registry shows to anyone. Default
	// none.
	Logins []string

	// MaxConnections (max_connections) is how many connections one address may have. With 0 there is no
	// such limit, as with each of the following. Default 256.
	MaxConnections int

	// MaxRequests (max_requests) is how many requests an address may send in a second. Default 100.
	MaxRequests int

	// MaxFills (max_fills) is how many blobs are fetched from registries for one address at a time.
	// Default 32.
	MaxFills int

	// Rate (rate, a size) is how many bytes an address gets in a second. Default 0.
	Rate Size
}

// defaultSite returns [site] if no key of it is set.
func defaultSite() Site {
	return Site{TLS: "acme", ACMEDirectory: LetsEncrypt, MaxConnections: 256, MaxRequests: 100, MaxFills: 32}
}

// SiteNames returns the host names of the site: those that stand for a registry, sorted.
func (c *Config) SiteNames() []string {
	var names []string
	for _, r := range c.Registries {
		names = append(names, r.Hosts...)
	}
	slices.Sort(names)
	return names
}

// limit is a number for which 0 means that there is no limit.
type limit int

// maxLimit is more than any host can serve: a larger number is a mistake.
const maxLimit = 1_000_000

func parseLimit(text string) (limit, error) {
	n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 0, 64)
	if err != nil || n < 0 || n > maxLimit {
		return 0, wrong(quote(text)+" is out of range", fmt.Sprintf("write a number from 1 to %d, or 0 for no limit", maxLimit))
	}
	return limit(n), nil
}

// rate is a number of bytes in a second, for which 0 means that there is no limit.
type rate Size

func parseRate(text string) (rate, error) {
	size, err := ParseSize(strings.TrimSuffix(text, "/s"))
	if err != nil && strings.HasSuffix(strings.ToLower(text), "bit") {
		err = wrong(quote(text)+" is a number of bits", `write bytes in a second: "10Mbit" is "1250KB"`)
	}
	return rate(size), err
}

// String returns the rate exactly, as a size.
func (r rate) String() string { return Size(r).String() }

// parsePrefix reads a network, or an address as the network of that address alone.
func parsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, addrErr := netip.ParseAddr(text)
		if addrErr != nil || addr.Zone() != "" {
			return prefix, wrong(quote(text)+" is not a network", networkHint(text))
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if prefix.Addr().Is4In6() {
		return prefix, wrong(quote(text)+" is an IPv4 network written as IPv6", `write it as "10.0.0.0/8"`)
	}
	if masked := prefix.Masked(); masked != prefix {
		return prefix, wrong(quote(text)+" is an address in a network", fmt.Sprintf("write %q, or the address without a length", masked))
	}
	return prefix, nil
}

// networkHint returns what to write in the place of a word that other programs take for a network.
func networkHint(text string) string {
	switch strings.ToLower(text) {
	case "localhost":
		return `write "127.0.0.1", "::1" or both`
	case "all", "any", "*", "everyone":
		return `write "0.0.0.0/0" and "::/0" for everyone`
	}
	return `write an address and a length, as "10.0.0.0/8" or "fd00::/8"`
}

// checkDirectory accepts the URL of an ACME directory. ACME asks for https (RFC 8555, 6.1).
func checkDirectory(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || !validHostPort(u.Host) || u.User != nil {
		return wrong("the value is not the https URL of an ACME directory", fmt.Sprintf("write one such as %q, or remove the key", LetsEncrypt))
	}
	return nil
}

func checkEmail(text string) error {
	if text == "" {
		return nil
	}
	if addr, err := mail.ParseAddress(text); err != nil || addr.Address != text {
		return wrong(quote(text)+" is not an email address", `write one such as "admin@example.com"`)
	}
	return nil
}

// checkSite compares the keys of [site] with each other and with the registries.
func (l *loader) checkSite() {
	s := &l.c.Site
	_, tls := l.c.from["site.tls"]
	if !tls && (s.Cert != "" || s.Key != "") {
		s.TLS = "files"
	}
	switch {
	case s.Cert == "" && s.Key != "":
		l.complain("site.key", -1, "the key has no certificate", "add cert")
	case s.Cert != "" && s.Key == "":
		l.complain("site.cert", -1, "the certificate has no key", "add key")
	case s.TLS == "files" && s.Cert == "":
		l.complain("site.tls", -1, "the files are not named", "add cert and key")
	case s.TLS != "files" && s.Cert != "":
		l.complain("site.tls", -1, fmt.Sprintf("with %q the certificate in cert is not used", s.TLS), `write "files", or remove cert and key`)
	case s.TLS == "off" && len(s.HTTPListen) > 0:
		l.complain("site.http_listen", -1, "without TLS there is nothing to redirect to", "move its addresses to listen")
	}
	for key, addrs := range map[string][]netip.AddrPort{"site.listen": s.Listen, "site.http_listen": s.HTTPListen} {
		for i, addr := range addrs {
			if slices.Contains(l.c.Listen, addr) || key == "site.http_listen" && slices.Contains(s.Listen, addr) {
				l.complain(key, i, addr.String()+" is in another list of addresses too", "write another port")
			}
		}
	}
	if len(s.Listen) > 0 && len(l.c.SiteNames()) == 0 {
		l.complain("site.listen", -1, "the site has no name", "add hosts = [\"docker.example.com\"], with your own domain, to [registry.\"docker.io\"]")
	}
	for i, name := range s.Logins {
		if l.c.Registry(name) == nil {
			l.complain("site.logins", i, quote(name)+" is not served on the site, because it has no table", fmt.Sprintf("add [registry.%q]", name))
		}
	}
}
