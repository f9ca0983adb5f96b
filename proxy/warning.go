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
