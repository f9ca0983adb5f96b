package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/proxy/access"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// maxUntrustedList is how long a list may be, in bytes, to be stored for an untrusted caller.
const maxUntrustedList = 256 << 10

// serveList responds with a page of tags or of referrers, as the upstream sent it except for
// the link to the next page, which leads here. The last response is stored for when the
// upstream is away.
func (p *Proxy) serveList(w *response, r *request) error {
	fetch := r.fetchList
	if r.Kind == oci.Referrers {
		fetch = r.fetchReferrers
	}
	l, u, err := fetch(&w.line)
	if p.cache != nil {
		p.noteRefusal(r, u, err)
		key := r.LocalPath() + "?" + r.upstreamQuery().Encode() + " " + string(rune(r.Form)) + " " + r.caller.Name()
		if err == nil {
			p.storeList(r, u, key, l)
		} else if stored := p.storedList(r, key, err); stored != nil {
			l, err, w.line.cache = stored, nil, "stale"
			w.Header().Add("Warning", staleWarning)
		} else if none := p.unknownReferrers(r, err); none != nil {
			l, err, w.line.cache = none, nil, "stale"
			w.Header().Add("Warning", staleWarning)
		}
	}
	if err != nil {
		return err
	}
	for name, value := range l.Header {
		w.Header().Set(name, value)
	}
	if err := r.memory.Hold(int64(len(l.Body))); err != nil {
		return busy(err)
	}
	addWarnings(w.Header(), l.Warning)
	w.Header().Set("Content-Length", strconv.Itoa(len(l.Body)))
	w.WriteHeader(http.StatusOK)
	if r.http.Method == http.MethodHead {
		return nil
	}
	_, err = w.Write(l.Body)
	return err
}

// storeList stores a response for the identity that it was sent to. A client's own token has
// none that lasts.
func (p *Proxy) storeList(r *request, u *upstream.Upstream, key string, l *cache.Answer) {
	l.Seen, l.Learned = time.Now(), r.learned(u, time.Now())
	if l.By == "" || l.Untrusted && len(l.Body) > maxUntrustedList {
		return
	}
	p.grants.AllowList(r.caller, r.repository(), u.Name())
	_ = p.cache.SetAnswer(r.repository(), key, *l) // a lost record is asked for again
}

// storedList returns the last response, if the upstream that sent it is away, the caller may
// have it and it is not too old; nil otherwise.
func (p *Proxy) storedList(r *request, key string, err error) *cache.Answer {
	stored, readErr := p.cache.Answer(r.repository(), key)
	if readErr != nil {
		return nil
	}
	age := time.Since(stored.Seen)
	if age < 0 || age >= p.freshness.MaxStale || !upstream.Away(err, stored.Upstream) {
		return nil
	}
	if !p.grants.MayListWhileAway(r.caller, r.repository(), stored.Learned) {
		return nil
	}
	return stored
}

// fetchList asks the upstreams for a page. One that sends something else, such as a sign-in page, is
// passed over for the next.
func (r *request) fetchList(l *accessLine) (*cache.Answer, *upstream.Upstream, error) {
	for pool := r.registry.pool; ; {
		resp, u, err := r.ask(r.http.Context(), l, pool, r.query(http.MethodGet))
		if err != nil {
			return nil, u, err
		}
		page, err := r.readList(resp, u)
		if err == nil || errors.Is(err, access.ErrNoMemory) {
			return page, u, err
		}
		if pool = pool.Without(u); len(pool) == 0 {
			return nil, u, err
		}
	}
}

// readList reads a page that u has sent.
func (r *request) readList(resp *http.Response, u *upstream.Upstream) (*cache.Answer, error) {
	defer resp.Body.Close()
	body, err := readAtMost(r.memory.Reader(resp.Body), oci.MaxList)
	if errors.Is(err, access.ErrNoMemory) {
		return nil, busy(err)
	}
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New("a " + strconv.Itoa(resp.StatusCode))
	}
	if err == nil && !isList(r.Kind, body) {
		err = errors.New("something that is not a list of " + r.Kind.String())
	}
	if err != nil {
		return nil, &oci.Error{Code: oci.Unavailable, Message: u.Host() + " sent " + err.Error()}
	}
	page := &cache.Answer{Body: r.localList(body, u), Header: map[string]string{}}
	for _, name := range []string{"Content-Type", "OCI-Filters-Applied"} {
		if v := resp.Header.Get(name); v != "" {
			page.Header[name] = v
		}
	}
	if links := r.localLinks(resp.Header.Values("Link")); links != "" {
		page.Header["Link"] = links
	}
	page.Warning = readWarnings(resp.Header)
	return page, nil
}

// localList returns a list of tags with the repository's own name in it, in the place of the one that
// an upstream with a prefix has for it. Other lists are returned as they are.
func (r *request) localList(body []byte, u *upstream.Upstream) []byte {
	if r.Kind != oci.Tags {
		return body
	}
	var list map[string]json.RawMessage
	var name string
	if json.Unmarshal(body, &list) != nil || json.Unmarshal(list["name"], &name) != nil || u.LocalRepository(name) == name {
		return body
	}
	list["name"], _ = json.Marshal(u.LocalRepository(name)) // a string can be marshalled
	if mapped, err := json.Marshal(list); err == nil {
		return mapped
	}
	return body
}

// isList reports whether body is a list of that kind: a sign-in page with status 200 is not. It
// looks no further than to the name of the list.
func isList(kind oci.Kind, body []byte) bool {
	name := "manifests"
	if kind == oci.Tags {
		name = "tags"
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return false
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return false
		}
		if text, ok := key.(string); ok && strings.EqualFold(text, name) {
			return true
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return false
		}
	}
	return false
}

// localLinks makes every link to a page of the list (RFC 8288) lead to the same page here,
// `<https://upstream/v2/…?n=…&last=…>; rel="next"`: the local path, its query, and the
// registry named as the client names it. A link to anything else is left out.
func (r *request) localLinks(values []string) string {
	var links []string
	for _, v := range values {
		for rest := v; ; {
			target, params, after, ok := cutLink(rest)
			if !ok {
				break
			}
			if local, ok := r.localLink(target); ok {
				links = append(links, "<"+local+">"+params)
			}
			rest = after
		}
	}
	return strings.Join(links, ", ")
}

// localLink returns the local form of a link's target.
func (r *request) localLink(target string) (string, bool) {
	u, err := url.Parse(target)
	list := strings.TrimPrefix(r.Path(), "/v2/"+r.Repository+"/")
	if err != nil || u.Path != "" && !strings.HasSuffix(u.Path, list) { // without a path it is relative to this page
		return "", false
	}
	query := u.Query()
	delete(query, "ns")
	if r.Form == oci.ByNamespace {
		query.Set("ns", r.Registry)
	}
	return withQuery(r.LocalPath(), query.Encode()), true
}

// cutLink splits a Link header into the target and the parameters of its first link, with
// their semicolon, and the rest. A comma within quotes is part of a parameter.
func cutLink(s string) (target, params, rest string, ok bool) {
	_, s, open := strings.Cut(s, "<")
	target, s, ok = strings.Cut(s, ">")
	if !open || !ok {
		return "", "", "", false
	}
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			return target, s[:i], s[i+1:], true
		}
	}
	return target, s, "", true
}
