package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

const maxRedirects = 5

// follow follows the redirects of resp, if it is one. As long as they stay within the
// upstream's own origin, they are requests to the upstream like any other: authorized,
// and a challenge is answered. From the first other origin on they go out on a client
// without credentials, with none of the request's own, and a 401 starts nothing; also
// where they lead back, since another host chose that URL.
func (u *Upstream) follow(ctx context.Context, r Request, resp *http.Response) (*http.Response, error) {
	at := u.target(r)
	own := true
	for hops := 0; isRedirect(resp.StatusCode); hops++ {
		drain(resp)
		if hops == maxRedirects {
			return nil, u.refuse("redirects more than %d times", maxRedirects)
		}
		next, err := u.location(at, resp)
		if err != nil {
			return nil, err
		}
		own = own && sameOrigin(next, u.url)
		if resp, err = u.fetchRedirect(ctx, r, next, own); err != nil {
			return nil, err
		}
		if r.Method == http.MethodHead && resp.StatusCode == http.StatusForbidden {
			// A URL is signed for one method, and this one was signed for GET.
			if resp, err = u.headByGet(ctx, r, next, own, resp); err != nil {
				return nil, err
			}
		}
		at = next
	}
	if !own && resp.StatusCode/100 == 2 {
		r.Target.remember(at)
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		drain(resp)
		return nil, u.refuse("answered %d to a request without conditions", resp.StatusCode)
	}
	return resp, nil
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// location returns where resp redirects to, if sidemirror may follow it there.
func (u *Upstream) location(at *url.URL, resp *http.Response) (*url.URL, error) {
	next, err := at.Parse(resp.Header.Get("Location")) // Artifact Registry's are relative
	if err != nil || resp.Header.Get("Location") == "" || next.Host == "" {
		return nil, u.refuse("redirects to something that is not a URL")
	}
	if next.Scheme != "https" && (next.Scheme != "http" || u.url.Scheme != "http") {
		return nil, u.refuse("redirects to %s without TLS", next.Hostname())
	}
	if next.User != nil {
		return nil, u.refuse("redirects to %s with a login in the URL", next.Hostname())
	}
	if !sameOrigin(next, u.url) {
		if err := checkHost(next.Hostname(), u.furthestRedirect()); err != nil {
			return nil, u.refuse("redirects to %s: %v", next.Hostname(), err)
		}
	}
	return next, nil
}

// fetchRedirect asks for where a redirect leads. own says that the upstream itself chose
// the URL and that it is the upstream's. A store at the upstream's own address that takes
// a signature in the URL or an Authorization and not both (S3 answers 400) is asked again
// without the latter.
func (u *Upstream) fetchRedirect(ctx context.Context, r Request, to *url.URL, own bool) (*http.Response, error) {
	transport := http.RoundTripper(u.redirect)
	if own {
		resp, err := u.ask(ctx, r, to)
		if err != nil || resp.StatusCode != http.StatusBadRequest {
			return resp, err
		}
		drain(resp)
		transport = u.client(r.Identity).watched
	}
	resp, err := r.carried(to, func(own bool) (*http.Response, error) {
		if own {
			ctx = onItsOwn(ctx)
		}
		return transport.RoundTrip(newRequest(ctx, r.Method, to, r.Header, u.userAgent))
	})
	if err != nil {
		return nil, u.explain(ctx, &url.URL{Host: to.Host}, err)
	}
	return resp, nil
}

// headByGet learns by a GET of one byte what a refused HEAD would have said.
func (u *Upstream) headByGet(ctx context.Context, r Request, to *url.URL, own bool, refused *http.Response) (*http.Response, error) {
	drain(refused)
	r.Method, r.Header = http.MethodGet, r.Header.Clone()
	r.Header.Set("Range", firstByte)
	resp, err := u.fetchRedirect(ctx, r, to, own)
	if err != nil {
		return nil, err
	}
	AsHead(resp)
	return resp, nil
}

// AsHead turns the response to a GET of the first byte into the response to a HEAD: 200
// with the length of the whole, -1 if it is unknown, and no body.
func AsHead(resp *http.Response) {
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(strings.NewReader(""))
	switch resp.StatusCode {
	case http.StatusOK:
		return
	case http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable: // the latter: nothing at all
		if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && resp.Header.Get("Content-Range") != "bytes */0" {
			return
		}
		resp.StatusCode, resp.ContentLength = http.StatusOK, -1
		if _, total, ok := strings.Cut(resp.Header.Get("Content-Range"), "/"); ok {
			if n, err := strconv.ParseInt(total, 10, 64); err == nil && n >= 0 {
				resp.ContentLength = n
			}
		}
		resp.Header.Del("Content-Range")
		resp.Header.Del("Content-Length")
	}
}

func (u *Upstream) refuse(format string, args ...any) error {
	return &oci.Error{Code: oci.Untrusted, Message: u.url.Host + " " + fmt.Sprintf(format, args...)}
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "http" {
		return "80"
	}
	return "443"
}
