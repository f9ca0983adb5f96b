package proxy

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/oci"
)

// maxList bounds a page of tags or referrers, in bytes.
const maxList = 8 << 20

// serveList answers for a page of tags or of referrers, as the upstream has it but
// for the link to the next page, which leads here. The last answer is kept for when
// the upstream is away.
func (p *Proxy) serveList(a *answer, c *call) error {
	l, err := c.fetchList()
	if p.cache != nil {
		p.note(c, err)
		key := c.LocalPath() + "?" + c.Query.Encode() + " " + string(rune(c.Form))
		if err == nil {
			l.Seen = time.Now()
			_ = p.cache.SetAnswer(c.repository(), key, *l) // lost, it is asked for again
		} else if kept := p.keptList(c, key); kept != nil && oci.Away(err) {
			l, err, c.cached = kept, nil, "stale"
			a.Header().Set("Warning", staleWarning)
		}
	}
	if err != nil {
		return err
	}
	for name, value := range l.Header {
		a.Header().Set(name, value)
	}
	a.Header().Set("Content-Length", strconv.Itoa(len(l.Body)))
	a.WriteHeader(http.StatusOK)
	if c.http.Method == http.MethodHead {
		return nil
	}
	_, err = a.Write(l.Body)
	return err
}

// keptList gives the last answer, if c's identity may have it and it is not too old.
func (p *Proxy) keptList(c *call, key string) *cache.Answer {
	kept, err := p.cache.Answer(c.repository(), key)
	if err != nil || time.Since(kept.Seen) >= p.freshness.MaxStale || !p.stretched(c) {
		return nil
	}
	return kept
}

// fetchList asks the upstream for a page.
func (c *call) fetchList() (*cache.Answer, error) {
	resp, u, err := c.ask(c.http.Context(), c.registry.pool, c.upstreamRequest(http.MethodGet))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := readAtMost(resp.Body, maxList)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New("a " + strconv.Itoa(resp.StatusCode))
	}
	if err != nil {
		return nil, &oci.Error{Code: oci.Unavailable, Message: u.Host() + " sent " + err.Error()}
	}
	l := &cache.Answer{Body: body, Header: map[string]string{}}
	for _, name := range []string{"Content-Type", "OCI-Filters-Applied"} {
		if v := resp.Header.Get(name); v != "" {
			l.Header[name] = v
		}
	}
	if next, ok := c.localLink(strings.Join(resp.Header.Values("Link"), ", ")); ok {
		l.Header["Link"] = next
	}
	return l, nil
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
