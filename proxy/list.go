package proxy

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// maxList bounds a page of tags or referrers, in bytes.
const maxList = 8 << 20

// serveList answers for a page of tags or of referrers, as the upstream has it but
// for the link to the next page, which leads here.
func (p *Proxy) serveList(a *answer, c *call) error {
	resp, u, err := c.ask(c.http.Context(), c.registry.pool, c.upstreamRequest(http.MethodGet))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := readAtMost(resp.Body, maxList)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New("a " + strconv.Itoa(resp.StatusCode))
	}
	if err != nil {
		return &oci.Error{Code: oci.Unavailable, Message: u.Host() + " sent " + err.Error()}
	}
	h := a.Header()
	for _, name := range []string{"Content-Type", "OCI-Filters-Applied"} {
		if v := resp.Header.Get(name); v != "" {
			h.Set(name, v)
		}
	}
	for _, link := range resp.Header.Values("Link") {
		if next, ok := c.localLink(link); ok {
			h.Add("Link", next)
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	a.WriteHeader(http.StatusOK)
	if c.http.Method == http.MethodHead {
		return nil
	}
	_, err = a.Write(body)
	return err
}

// localLink makes `<https://upstream/v2/…?n=…&last=…>; rel="next"` (RFC 8288) lead
// to the same page here: our path, its query, and the registry named as the client
// names it.
func (c *call) localLink(link string) (string, bool) {
	target, params, ok := strings.Cut(strings.TrimSpace(link), ">")
	target, open := strings.CutPrefix(target, "<")
	u, err := url.Parse(target)
	if !ok || !open || err != nil {
		return "", false
	}
	query := u.Query()
	delete(query, "ns")
	if c.Form == oci.ByNamespace {
		query.Set("ns", c.Registry)
	}
	return "<" + withQuery(c.LocalPath(), query.Encode()) + ">" + params, true
}
