// Package web is the page at "/": how to pull through this host, in English or Chinese, with the
// name of the host that the request used.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sidemirror/sidemirror/daemon/config"
)

// Info is what the page shows about the daemon. It contains no secret: every client of the listener
// can read it.
type Info struct {
	// Registries are listed in this order.
	Registries []config.Registry

	// Default names the registry of a reference that names none. If it is empty, the page does not
	// mention it.
	Default string

	// Listen is an address of sidemirror, host:port, for a request without a Host.
	Listen string

	// Version is shown at the foot.
	Version string
}

//go:embed page.html en.html zh.html style.css
var files embed.FS

var pages = map[language]*template.Template{
	english: template.Must(template.ParseFS(files, "page.html", "en.html")),
	chinese: template.Must(template.ParseFS(files, "page.html", "zh.html")),
}

// Handler returns the page for GET and HEAD of "/", and refuses other requests. The caller has
// checked that the Host of the request is a name of sidemirror's; here it is text to be escaped.
func Handler(info Info) http.Handler {
	css, err := files.ReadFile("style.css")
	if err != nil {
		panic("web: style.css is not embedded: " + err.Error())
	}
	// The page needs its own style and nothing else: no script, no image, no form, nothing from
	// another host. No page may frame it.
	sum := sha256.Sum256(css)
	policy := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if r.URL.Path != "/" {
			http.Error(w, "there is one page here, at /", http.StatusNotFound)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "the page at / answers GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		lang := choose(r)
		var body bytes.Buffer
		if err := pages[lang].ExecuteTemplate(&body, "page", newView(info, r, lang, css)); err != nil {
			http.Error(w, "writing the page: "+err.Error(), http.StatusInternalServerError)
			return
		}
		h.Set("Vary", "Accept-Language")
		h.Set("Content-Language", lang.tag())
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		h.Set("Content-Length", strconv.Itoa(body.Len()))
		if r.Method == http.MethodGet {
			_, _ = w.Write(body.Bytes())
		}
	})
}

// dockerHub is the registry whose images have short names.
const dockerHub = "docker.io"

// view is what the templates show.
type view struct {
	Info
	Lang  language
	Tag   string // of Lang, for the page's own lang attribute
	Style template.CSS

	// Host names sidemirror in an image reference, URL in an engine's configuration.
	Host, URL string

	// Plain says that Docker would insist on TLS here, which sidemirror does not serve.
	Plain bool

	// Own is the registry that Host stands for, if any. The prefix form does not work there.
	Own *config.Registry

	// Example is a registry other than Default, to show the prefix form.
	Example string

	// Hub means that names without a registry are those of Docker Hub here, Other that the page can
	// show how to pull from another registry.
	Hub, Other bool

	// Image is one that the commands of other clients pull.
	Image string
}

func newView(info Info, r *http.Request, lang language, css []byte) view {
	host, scheme, port := r.Host, "http", "80"
	if host == "" {
		host = info.Listen
	}
	if r.TLS != nil {
		scheme, port = "https", "443"
	}
	name := strings.Trim(host, "[]")
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	v := view{Info: info, Lang: lang, Tag: lang.tag(), Style: template.CSS(css), Host: host, URL: scheme + "://" + host}
	v.Plain = r.TLS == nil && !loopback(name)
	// Without a dot or a port, Docker takes the first component of a reference for a user of
	// Docker Hub (distribution/reference, splitDockerDomain).
	if !strings.ContainsAny(host, ".:") && name != "localhost" {
		v.Host = net.JoinHostPort(name, port)
	}
	for i, reg := range info.Registries {
		if slices.ContainsFunc(reg.Hosts, func(h string) bool { return strings.EqualFold(h, name) }) {
			v.Own = &info.Registries[i]
		}
		if reg.Name != info.Default && reg.Name != config.Wildcard && (v.Example == "" || reg.Name == "ghcr.io") {
			v.Example = reg.Name
		}
	}
	switch {
	case v.Own != nil:
		v.Hub = v.Own.Name == dockerHub
		v.Other = !v.Hub
	case len(info.Registries) > 0:
		v.Hub, v.Other = info.Default == dockerHub, v.Example != ""
	}
	switch {
	case v.Hub:
		v.Image = "library/redis:latest"
	case v.Own != nil:
		v.Image = "owner/image:tag"
	default:
		v.Image = v.Example + "/owner/image:tag"
	}
	return v
}

// loopback reports whether Docker uses plain HTTP for name by default, as it does for 127.0.0.0/8,
// ::1 and localhost.
func loopback(name string) bool {
	ip := net.ParseIP(name)
	return strings.EqualFold(name, "localhost") || ip != nil && ip.IsLoopback()
}
