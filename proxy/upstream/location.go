package upstream

import (
	"net/url"
	"strings"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/auth"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// described returns the upstream as a configuration has it.
func (c Config) described() config.Upstream {
	return config.Upstream{URL: c.URL, Prefix: c.Prefix, Namespaced: c.Namespace != ""}
}

// label returns the name by which people and metrics know the upstream.
func (c Config) label() string { return c.described().Label() }

// base returns the URL that the upstream's API is below, with the query of every request.
func (c Config) base() *url.URL {
	base := *c.URL
	base.Path = strings.TrimSuffix(base.Path, "/")
	if c.Namespace != "" {
		base.RawQuery = url.Values{"ns": {c.Namespace}}.Encode()
	}
	return &base
}

func (c Config) prefix() string {
	if c.Prefix == "" {
		return ""
	}
	return c.Prefix + "/"
}

// target returns the URL at which the upstream has what r asks for.
func (u *Upstream) target(r Request) *url.URL {
	path := r.Path
	if rest, ok := strings.CutPrefix(path, "/v2/"); ok && rest != "" {
		path = "/v2/" + u.prefix + rest
	}
	at := auth.Join(u.url, path)
	query := r.Query.Encode()
	if at.RawQuery != "" && query != "" {
		query += "&"
	}
	at.RawQuery = query + at.RawQuery
	return at
}

// LocalRepository returns the name, without the upstream's prefix, of a repository that the upstream
// calls name.
func (u *Upstream) LocalRepository(name string) string { return strings.TrimPrefix(name, u.prefix) }

// repositoryOf returns the repository that a URL of the upstream asks for, empty if it
// asks for none. A redirect may lead to another repository than the request named.
func (u *Upstream) repositoryOf(target *url.URL) string {
	path, ok := strings.CutPrefix(target.Path, u.url.Path+"/v2/")
	parts := strings.Split(path, "/")
	if !ok || len(parts) < 3 {
		return ""
	}
	switch parts[len(parts)-2] {
	case "manifests", "blobs", "referrers", "tags":
		if name := strings.Join(parts[:len(parts)-2], "/"); oci.ValidRepository(name) {
			return name
		}
	}
	return ""
}
