package secret

import (
	"net/url"
	"strings"
)

// URL returns a URL whose login is replaced by "xxxxx", for people. A URL without a scheme counts as an
// http one. Of text that is no URL, nothing is returned.
func URL(s Secret) string {
	text := s.Reveal()
	if text == "" {
		return ""
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return redacted
	}
	if u.User != nil {
		u.User = url.UserPassword("xxxxx", "xxxxx")
	}
	return (&url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host}).String()
}
