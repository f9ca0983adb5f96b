package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/sidemirror/sidemirror/internal/secret"
)

// maxProxy bounds the URL of a proxy, and maxProxyHost its host and port, in bytes. What is shown of a
// URL must not be too long to be read again.
const maxProxy, maxProxyHost = 4 << 10, 512

// proxySchemes are those of the proxies that can be used.
var proxySchemes = []string{"http", "https", "socks5", "socks5h"}

// parseProxy reads the URL of a forward proxy; "" is none. Its errors do not quote the text, which may
// have a password.
func parseProxy(text string) (secret.Secret, error) {
	if _, err := proxyURL(text); err != nil {
		return secret.Secret{}, err
	}
	return secret.New(text), nil
}

// proxyURL returns the URL of a forward proxy with the scheme that it has if none is written; nil for
// "".
func proxyURL(text string) (*url.URL, error) {
	const hint = `write a URL, as "http://proxy.example:3128"; characters such as @ in a password are written as %40`
	if text == "" {
		return nil, nil
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	switch {
	case len(text) > maxProxy:
		return nil, wrong(fmt.Sprintf("the URL has more than %d bytes", maxProxy), hint)
	case err != nil || u.Hostname() == "":
		return nil, wrong("the text is not the URL of a proxy", hint)
	case len(u.Host) > maxProxyHost || strings.ContainsFunc(u.Host, func(r rune) bool { return r > unicode.MaxASCII }):
		return nil, wrong(fmt.Sprintf("the host has letters other than ASCII, or more than %d bytes", maxProxyHost), `write the name in ASCII, as "xn--bcher-kva.example"`)
	case !slices.Contains(proxySchemes, u.Scheme):
		return nil, wrong("the URL has a scheme that no proxy has", "write one with "+strings.Join(proxySchemes, ", "))
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, wrong("the URL has a path, a query or a fragment, which no proxy has", hint)
	}
	return u, nil
}

// checkNoProxy accepts what can be in the variable NO_PROXY, between two commas.
func checkNoProxy(text string) error {
	const hint = `write a name, as "corp.example" or ".corp.example"; an address; a network, as "10.0.0.0/8"; or "*"`
	switch {
	case text == "":
		return wrong("the text is empty", hint)
	case strings.ContainsFunc(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) || !unicode.IsPrint(r) }) || strings.Contains(text, "://"):
		return wrong(quote(text)+" is neither a name nor an address nor a network", hint)
	case strings.Contains(text, "/"):
		if _, err := netip.ParsePrefix(text); err != nil {
			return wrong(quote(text)+" is not a network", hint)
		}
	}
	return nil
}
