package splice

import (
	"cmp"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// SameURL reports whether two URLs of mirrors lead to the same listener: the case of scheme and
// host, a default port, a trailing slash and the spelling of the loopback address do not count.
func SameURL(a, b string) bool { return a == b || canonicalURL(a) == canonicalURL(b) }

// SameHost reports whether two hosts of a hosts.toml lead to the same listener, as [SameURL] does.
// containerd adds /v2 to a path that does not end with it; k3s writes it.
func SameHost(a, b string) bool { return SameURL(withoutVersion(a), withoutVersion(b)) }

func withoutVersion(host string) string {
	return strings.TrimSuffix(strings.TrimRight(host, "/"), "/v2")
}

// reaches reports whether an engine that is given the URL text asks url. containerd, and Docker until
// 20.10, take a scheme in capitals for a part of the host.
func reaches(text, url string) bool {
	scheme, _, _ := strings.Cut(url, "://")
	return strings.HasPrefix(text, scheme+"://") && SameURL(text, url)
}

func canonicalURL(text string) string {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Host == "" {
		return text
	}
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Hostname())
	if host = strings.TrimSuffix(host, "."); host == "127.0.0.1" || host == "::1" {
		host = "localhost"
	}
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[scheme])
	u.Scheme, u.Host = scheme, host+":"+port
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u.String()
}

// hasURL reports whether list has the same URL as text.
func hasURL(list []string, text string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return SameURL(s, text) })
}

// IsLoopback reports whether the host of a URL is localhost or a loopback address.
func IsLoopback(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return strings.EqualFold(u.Hostname(), "localhost") || err == nil && addr.IsLoopback()
}
