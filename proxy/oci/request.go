// Package oci holds the registry protocol's words: what a request on the pull
// side of OCI Distribution 1.1 asks for, and how an error is told.
//
// [ParseRequest] is the only place that looks at a request's path. Past it there
// are typed values that have been checked against the specification's grammars.
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

// The kinds of request, with the endpoint of the specification that each is.
const (
	Base      Kind = iota + 1 // GET /v2/ (end-1)
	Blob                      // GET, HEAD /v2/<name>/blobs/<digest> (end-2)
	Manifest                  // GET, HEAD /v2/<name>/manifests/<reference> (end-3)
	Tags                      // GET /v2/<name>/tags/list (end-8a, end-8b)
	Referrers                 // GET /v2/<name>/referrers/<digest> (end-12a, end-12b)
	Token                     // GET, POST /v2/auth: the token endpoint of relay mode, ours
)

var kindNames = [...]string{Base: "base", Blob: "blob", Manifest: "manifest", Tags: "tags", Referrers: "referrers", Token: "token"}

// String gives the kind's name for a log.
func (k Kind) String() string {
	if k > 0 && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Form says by which of its three names, or by none, a request named its registry.
type Form int

// The forms, the strongest first.
const (
	ByNamespace Form = iota + 1 // ?ns=ghcr.io: containerd, Docker from 28 on, BuildKit
	ByHost                      // a Host name of ours that stands for a registry
	ByPrefix                    // /v2/ghcr.io/<name>/…: people, podman
	ByDefault                   // none: dockerd through registry-mirrors
)

// Request is what a request asks for. Repository and Tag obey the specification's
// grammar, Digest is of a known algorithm and well-formed.
type Request struct {
	Kind     Kind
	Form     Form
	Registry string // as references name it

	Repository string        // without the prefix; empty for Base and Token
	Tag        string        // for Manifest, if asked for by tag
	Digest     digest.Digest // for Blob, Referrers, and Manifest if asked for by digest

	// Query is what is left of the query without ns; it goes upstream.
	Query url.Values

	// Prefixed says that the path starts with the registry's name. It may beside
	// ByNamespace too: BuildKit does both.
	Prefixed bool
}

// Registries is the set of registries served, as ParseRequest needs to know it.
type Registries interface {
	// Serves reports whether name, as a reference has it, is served.
	Serves(name string) bool
	// ByHost gives the registry that a host name of ours (no port, lower case)
	// stands for.
	ByHost(host string) (name string, ok bool)
	// Default gives the registry of a request that names none.
	Default() string
}

// ParseRequest says what r asks for, or why it is refused: as an [*Error] with the
// status to answer with. It reads r's method, URL and Host and nothing else.
func ParseRequest(r *http.Request, names Registries) (Request, error) {
	query, err := checkShape(r)
	if err != nil {
		return Request{}, err
	}
	path, ok := strings.CutPrefix(r.URL.EscapedPath()+"/", "/v2/")
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

// checkShape refuses what no engine sends and some servers have been fooled by
// (security.md §6), and gives the query.
func checkShape(r *http.Request) (url.Values, error) {
	if r.URL.Host != "" || r.URL.Opaque != "" || r.URL.Scheme != "" {
		return nil, malformed("the request target must be a path, not a whole URL")
	}
	path := r.URL.EscapedPath()
	if strings.ContainsAny(path, `%\`) {
		return nil, malformed("the path must not hold %% or \\: no registry path needs them")
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "." || part == ".." {
			return nil, malformed("the path must not hold %q", part)
		}
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, malformed("the query cannot be parsed")
	}
	return query, nil
}

// chooseRegistry finds the registry meant, by protocol.md §1: the namespace, our
// Host name, the first component of the path, the default. It gives the path
// without the registry's name and takes ns out of the query, since an upstream
// must never see it.
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
		// BuildKit's mirrors send both. A repository of another registry may well
		// begin with a registry's name (Harbor's proxy projects do), so only the very
		// name of ns is taken for a prefix.
		rest, req.Prefixed = strings.CutPrefix(path, ns[0]+"/")
	} else if name, ok := names.ByHost(hostname(host)); ok {
		req.Form, req.Registry, rest = ByHost, name, path
	} else if first, after, ok := strings.Cut(path, "/"); ok && looksLikeRegistry(first) {
		req.Form, req.Registry, req.Prefixed, rest = ByPrefix, first, true, after
	} else {
		req.Form, req.Registry, rest = ByDefault, names.Default(), path
	}
	if !ValidRegistry(req.Registry) || !names.Serves(req.Registry) {
		return "", &Error{Code: RegistryUnknown, Message: "registry " + quote(req.Registry) + " is not served here"}
	}
	return rest, nil
}

// parsePath reads the path after the registry's name.
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
	parts := strings.Split(path, "/")
	n := len(parts)
	if path == "_catalog" || strings.Contains(path, "/blobs/uploads") {
		return &Error{Code: Unsupported, Message: "this is a mirror to pull from: catalogs and pushes are not served"}
	}
	if n < 3 {
		return &Error{Code: NotFound, Message: "nothing is served at this path"}
	}
	req.Repository = strings.Join(parts[:n-2], "/")
	if !ValidRepository(req.Repository) {
		return &Error{Code: NameInvalid, Message: "the repository's name is not valid"}
	}
	return req.parseContent(parts[n-2], parts[n-1])
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

// Path gives the path that asks for the same below an upstream's /v2/ (with the
// leading slash).
func (req Request) Path() string {
	if req.Kind == Base || req.Kind == Token {
		return "/v2/"
	}
	return "/v2/" + req.Repository + req.tail()
}

// LocalPath gives the path that asks for the same here.
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

// allow refuses a method that is none of those. CONNECT and TRACE are refused as
// malformed: they are no registry's.
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
		Message: "this is a mirror to pull from: " + quote(method) + " is not served",
		Allow:   strings.Join(methods, ", "),
	}
}

// hostname gives the host of a Host header, lower case, without its port.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}
