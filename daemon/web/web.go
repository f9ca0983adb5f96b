// Package web is the page at "/": whether the engines of this host pull through sidemirror, what
// happens now, and how to pull by hand, in English or Chinese, with the name of the host that the
// request used.
//
// Any user of the host and every container on its network can ask for the page, and so can a web page
// in the browser of a user. Images and addresses are therefore shown to trusted callers alone, and
// figures are rounded for others.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/forwarded"
)

// Info is what the page shows about the daemon. It contains no secret.
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

	// Live, if not nil, returns what happens on the host.
	Live func() Live

	// Trusted, if not nil, reports whether the sender of a request may see which images are pulled.
	Trusted func(*http.Request) bool

	// Site, if not nil, reports whether the sender of a request is another host, which pulls through
	// sidemirror by its domain. It sees how to do that, and nothing about this host.
	Site func(*http.Request) bool

	// ShowImages lets every sender see them.
	ShowImages bool
}

//go:embed page.html live.html commands.html en.html zh.html style.css page.js
var files embed.FS

// pages returns the templates. They are read when the page is first asked for.
var pages = sync.OnceValue(func() map[language]*template.Template {
	return map[language]*template.Template{
		english: template.Must(template.ParseFS(files, "page.html", "live.html", "commands.html", "en.html")),
		chinese: template.Must(template.ParseFS(files, "page.html", "live.html", "commands.html", "zh.html")),
	}
})

// page is the handler.
type page struct {
	info          Info
	style, script string
	policy        string // Content-Security-Policy

	mu       sync.Mutex
	coarse   Live      // what callers see who may not see images
	coarseAt time.Time // the minute that it is of
}

// Handler returns the page for GET and HEAD of "/", and refuses other requests. The caller has
// checked that the Host of the request is a name of sidemirror's; here it is text to be escaped.
func Handler(info Info) http.Handler {
	p := &page{info: info, style: embedded("style.css"), script: embedded("page.js")}
	// The page needs its own style and script and nothing else. No page may frame it.
	p.policy = "default-src 'none'; style-src " + hash(p.style) + "; script-src " + hash(p.script) +
		"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return p
}

func embedded(name string) string {
	data, err := files.ReadFile(name)
	if err != nil {
		panic("web: " + name + " is not embedded: " + err.Error())
	}
	return string(data)
}

// hash returns text as the source expression of a Content-Security-Policy.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// ServeHTTP implements [http.Handler].
func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", p.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	// Another site's page can neither embed this one nor hold on to its window.
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if forwarded.Scheme(r) == "https" || loopback(hostName(r.Host)) {
		h.Set("Cross-Origin-Opener-Policy", "same-origin") // browsers complain about it elsewhere
	}
	h.Set("Cache-Control", "no-store")
	switch {
	case r.URL.Path != "/":
		http.Error(w, "there is one page here, at /", http.StatusNotFound)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "the page at / answers GET and HEAD", http.StatusMethodNotAllowed)
		return
	case fromElsewhere(r):
		http.Error(w, "web pages may not read the page of sidemirror", http.StatusForbidden)
		return
	}
	lang := choose(r)
	name := "page"
	if wantsPart(r) {
		name = "live"
	}
	var body bytes.Buffer
	if err := pages()[lang].ExecuteTemplate(&body, name, p.view(r, lang)); err != nil {
		http.Error(w, "writing the page: "+err.Error(), http.StatusInternalServerError)
		return
	}
	h.Set("Vary", "Accept-Language")
	h.Set("Content-Language", lang.tag())
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	if r.Method == http.MethodGet {
		_, _ = w.Write(body.Bytes())
	}
}

// wantsPart reports whether the script of the page sent r, for the part that changes.
func wantsPart(r *http.Request) bool { return r.URL.Query().Get("part") == "live" }
