package auth

import (
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// knownRealms are the token servers of registries that have them on another host. A
// pair is listed only if one owner runs both; other pairs are for "realms" in the
// configuration.
var knownRealms = map[string]string{
	oci.DockerHubUpstream:       oci.DockerHubRealm,
	"index.docker.io":           oci.DockerHubRealm,
	"registry.gitlab.com":       "gitlab.com",
	"registry.digitalocean.com": "api.digitalocean.com",
}

// RealmPolicy says which token servers a registry's challenge may name. sidemirror does
// not even connect to another one: neither a registry nor a program in its place may
// have a password sent elsewhere (CVE-2026-33540). A common registrable domain is not
// enough: evil.azurecr.io is the same site as a.azurecr.io.
type RealmPolicy struct {
	Upstream *url.URL // its own host and port are always allowed
	Allowed  []string // further origins ("https://sso.corp.example:8443")
}

// Check returns realm as a URL if it may be asked for a token. Otherwise the error
// names the host and the setting that would allow it. The error may be shown to users.
func (p RealmPolicy) Check(realm string) (*url.URL, error) {
	u, err := url.Parse(realm)
	if err != nil || u.Host == "" || u.Opaque != "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, p.refuse("the registry names a token realm that is not an http URL")
	}
	if u.User != nil {
		return nil, p.refuse("the registry names a token realm with a login in it, on host " + u.Hostname())
	}
	if u.Fragment != "" {
		return nil, p.refuse("the registry names a token realm with a fragment, on host " + u.Hostname())
	}
	origin := originOf(u)
	if origin == originOf(p.Upstream) {
		return u, nil
	}
	if known, ok := knownRealms[strings.ToLower(p.Upstream.Host)]; ok && origin == "https://"+known+":443" {
		return u, nil
	}
	for _, a := range p.Allowed {
		if allowed, err := url.Parse(a); err == nil && allowed.Host != "" && origin == originOf(allowed) {
			return u, nil
		}
	}
	if u.Scheme == "http" && p.Upstream.Scheme == "https" {
		return nil, p.refuse(fmt.Sprintf("the registry names a token realm without TLS, on host %s", u.Host))
	}
	return nil, p.refuse(fmt.Sprintf(
		"the registry sends its clients to %s for a token, which is not its own host; "+
			"if that is right, set realms = [\"%s://%s\"] for it in the configuration",
		u.Host, u.Scheme, u.Host))
}

func (p RealmPolicy) refuse(message string) error {
	return &oci.Error{Code: oci.Untrusted, Message: message}
}

// originOf returns scheme, host and port in one form for comparison.
func originOf(u *url.URL) string {
	host, port := strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(host, port)
}
