// Package oci holds the vocabulary of the registry protocol: requests on the pull side of
// OCI Distribution 1.1, references and their grammars, media types, size limits, the
// names of Docker Hub, and errors.
//
// Only [ParseRequest] looks at the path of a request. What it returns has been checked
// against the grammars of the specification.
package oci

import (
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Kind says what a request asks for.
type Kind int

// The kinds of request, each with its endpoint in the specification.
const (
	Base      Kind = iota + 1 // GET /v2/ (end-1)
	Blob                      // GET, HEAD /v2/<name>/blobs/<digest> (end-2)
	Manifest                  // GET, HEAD /v2/<name>/manifests/<reference> (end-3)
	Tags                      // GET /v2/<name>/tags/list (end-8a, end-8b)
	Referrers                 // GET /v2/<name>/referrers/<digest> (end-12a, end-12b)
	Token                     // GET, POST /v2/auth: sidemirror's token endpoint in relay mode
)

var kindNames = [...]string{Base: "base", Blob: "blob", Manifest: "manifest", Tags: "tags", Referrers: "referrers", Token: "token"}

// String returns the kind's name for a log.
func (k Kind) String() string {
	if k > 0 && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Form says how a request named its registry.
type Form int

// The forms, the strongest first.
const (
	ByNamespace Form = iota + 1 // ?ns=ghcr.io: containerd, Docker from 28 on, BuildKit
	ByHost                      // a Host name that stands for a registry
	ByPrefix                    // /v2/ghcr.io/<name>/…: people, podman
	ByDefault                   // not at all: dockerd through registry-mirrors
)

// Request is what a request asks for. Repository and Tag obey the grammar of the
// specification. Digest is well-formed and of a known algorithm.
type Request struct {
	Kind     Kind
	Form     Form
	Registry string // as references name it

	Repository string        // without the prefix; empty for Base and Token
	Tag        string        // of a Manifest that is asked for by tag
	Digest     digest.Digest // of a Blob, of Referrers, and of a Manifest asked for by digest

	// Query is the query without ns. It goes upstream.
	Query url.Values

	// Prefixed says that the path starts with the name of the registry. It may do so with
	// ByNamespace too: BuildKit sends both.
	Prefixed bool
}

// Registries is the set of registries served, as ParseRequest needs to know it.
type Registries interface {
	// Serves reports whether name, as a reference has it, is served.
	Serves(name string) bool
	// ByHost returns the registry that a Host name (no port, lower case) stands for.
	ByHost(host string) (name string, ok bool)
	// Default returns the registry of a request that names none.
	Default() string
}

// ParseRequest returns what r asks for. The error is an [*Error] with the status to
// answer with. It reads the method, the URL and the Host of r and nothing else.
func ParseRequest(r *http.Request, names Registries) (Request, error) {
	path, query, err := checkShape(r)
	if err != nil {
		return Request{}, err
	}
	path, ok := strings.CutPrefix(path+"/", "/v2/")
	if !ok {
		return Request{}, &Error{Code: NotFound, Message: "nothing is served here: the registry API is below /v2/"}
	}
	path = strings.TrimSuffix(path, "/")

	req := Request{Query: query}
	rest, err := req.chooseRegistry(path, r.Host, names)
	if err != nil {
		return Request{}, err
	}
	if err := req.parsePath(rest, r.Method); err != nil {
		return Request{}, err
	}
	return req, nil
}

// checkShape refuses what no engine sends and what other servers have misread, and
// returns the path and the query.
func checkShape(r *http.Request) (string, url.Values, error) {
	if r.URL.Host != "" || r.URL.Opaque != "" || r.URL.Scheme != "" {
		return "", nil, malformed("the request target must be a path, not a whole URL")
	}
	path := r.URL.EscapedPath()
	if strings.Contains(path, "%") {
		path = unescape.Replace(path)
	}
	if strings.Contains(path, "%") || strings.Contains(path, `\`) {
		return "", nil, malformed("the path must not contain \\ or an escape other than those of \":\", \"@\", \"[\" and \"]\"")
	}
	if part, ok := dots(path); ok {
		return "", nil, malformed("the path must not contain %q", part)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", nil, malformed("the query cannot be parsed")
	}
	return path, query, nil
}

// dots returns the component of a path that leads to where another path leads, if there is one.
func dots(path string) (part string, ok bool) {
	if !strings.Contains(path, "/.") && !strings.HasPrefix(path, ".") {
		return "", false // as mostly: it costs less to see that than to look at each component
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "." || part == ".." {
			return part, true
		}
	}
	return "", false
}

// unescape decodes the characters of a registry path that clients may escape: those of
// sha256:…, host:port, tag@digest and [::1]. Nothing else of it needs an escape, and an
// escaped slash or dot is an attack.
var unescape = strings.NewReplacer("%3A", ":", "%3a", ":", "%40", "@", "%5B", "[", "%5b", "[", "%5D", "]", "%5d", "]")

// chooseRegistry finds the registry that is meant: the namespace, the Host name, the
// first component of the path, the default. It returns the path without the name of the
// registry and removes ns from the query, since an upstream must never see it.
func (req *Request) chooseRegistry(path, host string, names Registries) (rest string, err error) {
	if ns, ok := req.Query["ns"]; ok {
		delete(req.Query, "ns")
		if len(ns) != 1 {
			return "", malformed("ns is given %d times", len(ns))
		}
		if !ValidRegistry(ns[0]) {
			return "", malformed("ns is not the name of a registry")
		}
		req.Form, req.Registry = ByNamespace, ns[0]
		// BuildKit's mirrors send both. A repository of another registry may begin with a
		// registry's name too (Harbor's proxy projects do), so that only the name in ns
		// itself is a prefix.
		rest, req.Prefixed = strings.CutPrefix(path, ns[0]+"/")
	} else if name, ok := names.ByHost(hostname(host)); ok {
		req.Form, req.Registry, rest = ByHost, name, path
	} else if first, after, ok := strings.Cut(path, "/"); ok && looksLikeRegistry(first) {
		req.Form, req.Registry, req.Prefixed, rest = ByPrefix, withPort(first), true, after
	} else {
		req.Form, req.Registry, rest = ByDefault, names.Default(), path
	}
	if !ValidRegistry(req.Registry) || !names.Serves(req.Registry) {
		return "", NotServed(req.Registry)
	}
	return rest, nil
}

// NotServed returns the error for a registry that is not served to the caller. It is the same whether
// it is served to others or not.
func NotServed(registry string) *Error {
	return &Error{Code: RegistryUnknown, Message: "registry " + quote(registry) + " is not served here"}
}

// parsePath reads the path after the name of the registry.
func (req *Request) parsePath(path, method string) error {
	switch path {
	case "":
		req.Kind = Base
		return allow(method, http.MethodGet, http.MethodHead)
	case "auth":
		req.Kind = Token
		return allow(method, http.MethodGet, http.MethodPost)
	}
	if err := allow(method, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	if path == "_catalog" || strings.Contains(path, "/blobs/uploads") {
		return &Error{Code: Unsupported, Message: "sidemirror is a mirror to pull from: it serves neither catalogs nor pushes"}
	}
	rest, reference, _ := cutLast(path)
	repository, kind, ok := cutLast(rest)
	if !ok {
		return &Error{Code: NotFound, Message: "nothing is served at this path"}
	}
	req.Repository = repository
	if !ValidRepository(req.Repository) {
		return &Error{Code: NameInvalid, Message: "the repository's name is not valid"}
	}
	return req.parseContent(kind, reference)
}

// cutLast cuts a path around its last slash.
func cutLast(path string) (before, after string, found bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// parseContent reads the last two components of a path.
func (req *Request) parseContent(kind, reference string) error {
	switch kind {
	case "tags":
		req.Kind = Tags
		if reference != "list" {
			return &Error{Code: NotFound, Message: "nothing is served at this path"}
		}
		return nil
	case "manifests":
		req.Kind = Manifest
		return req.parseReference(reference)
	case "blobs":
		req.Kind = Blob
		return req.parseDigest(reference)
	case "referrers":
		req.Kind = Referrers
		return req.parseDigest(reference)
	}
	return &Error{Code: NotFound, Message: "nothing is served at this path"}
}

// Path returns the path by which an upstream is asked for the same, from /v2/ on.
func (req Request) Path() string {
	if req.Kind == Base || req.Kind == Token {
		return "/v2/"
	}
	return "/v2/" + req.Repository + req.tail()
}

// LocalPath returns the path by which sidemirror is asked for the same.
func (req Request) LocalPath() string {
	path := req.Path()
	if req.Kind == Token {
		path = "/v2/auth"
	}
	if req.Prefixed {
		path = "/v2/" + req.Registry + strings.TrimPrefix(path, "/v2")
	}
	return path
}

func (req Request) tail() string {
	reference := req.Tag
	if req.Digest != "" {
		reference = req.Digest.String()
	}
	switch req.Kind {
	case Blob:
		return "/blobs/" + reference
	case Manifest:
		return "/manifests/" + reference
	case Referrers:
		return "/referrers/" + reference
	default:
		return "/tags/list"
	}
}

// allow refuses a method that is none of methods. CONNECT and TRACE, which no registry
// knows, are malformed requests.
func allow(method string, methods ...string) error {
	for _, m := range methods {
		if method == m {
			return nil
		}
	}
	if method == http.MethodConnect || method == http.MethodTrace {
		return malformed("%s is not answered", method)
	}
	return &Error{
		Code:    Unsupported,
		Message: "sidemirror is a mirror to pull from: it does not serve " + quote(method),
		Allow:   strings.Join(methods, ", "),
	}
}

// hostname returns the host of a Host header in lower case, without its port.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}
