package proxy

import (
	"net/http"
	"regexp"
	"strings"
)

// maxWarning bounds the warnings of one response, in bytes, as the specification does.
const maxWarning = 4096

// warning299 is one warning that is meant for the person: OCI Distribution 1.1, "Warnings".
var warning299 = regexp.MustCompile(`299 [!#-'*+\-.^-z|~0-9A-Z:\[\]]+ "(?:[^"\\[:cntrl:]]|\\[^[:cntrl:]])*"`)

// readWarnings returns the warnings of an upstream that are meant for the person who pulls,
// one a line. Warnings of other codes are about caches on the way and not passed on.
func readWarnings(h http.Header) string {
	var all []string
	left := maxWarning
	for _, v := range h.Values("Warning") {
		if len(v) > maxWarning {
			continue
		}
		for _, w := range warning299.FindAllString(v, -1) {
			if left -= len(w); left < 0 {
				return strings.Join(all, "\n")
			}
			all = append(all, w)
		}
	}
	return strings.Join(all, "\n")
}

// addWarnings adds what readWarnings returned to a response.
func addWarnings(h http.Header, warnings string) {
	for w := range strings.SplitSeq(warnings, "\n") {
		if w != "" {
			h.Add("Warning", w)
		}
	}
}

const (
	// maxOwnWarnings bounds the warnings of sidemirror's own in one response.
	maxOwnWarnings = 4

	// maxOwnWarning bounds one of them, in bytes.
	maxOwnWarning = 512
)

// addOwnWarnings adds to the response with a manifest what the person who pulls should know, and can
// do something about: that it may be old, and what is wrong with the registry's login or limit. An
// untrusted caller learns only that it may be old.
func (p *Proxy) addOwnWarnings(h http.Header, r *request, m *manifest) {
	var texts []string
	if m.stale {
		texts = append(texts, "this may not be the latest "+r.Registry+"/"+r.Repository+":"+r.Tag+", because the registry cannot be asked at the moment")
	}
	if r.caller.Trusted {
		if r.caller.Unread() != nil {
			texts = append(texts, "a login for "+r.Registry+" cannot be read; run: sidemirror status")
		}
		texts = append(texts, p.notices(r.Registry)...)
	}
	for _, text := range texts[:min(len(texts), maxOwnWarnings)] {
		h.Add("Warning", ownWarning(text))
	}
}

// ownWarning returns text as a warning: RFC 7234, 5.5, with a quoted string of ASCII alone.
func ownWarning(text string) string {
	var b strings.Builder
	b.WriteString(`299 - "sidemirror: `)
	for _, c := range text {
		if b.Len() > maxOwnWarning {
			b.WriteString("...")
			break
		}
		switch {
		case c < ' ' || c == 0x7f:
			b.WriteByte(' ')
		case c > 0x7f:
			b.WriteByte('?')
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(byte(c))
		default:
			b.WriteByte(byte(c))
		}
	}
	b.WriteByte('"')
	return b.String()
}
