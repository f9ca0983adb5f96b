package proxy

import (
	"net/http"
	"testing"
)

func TestWebPagesAreToldFromClientsThatFollowARedirect(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		host   string
		header http.Header
		page   bool
	}{
		{"an engine", "127.0.0.1:305", nil, false},
		{"a Go client after our redirect", "127.0.0.1:305", http.Header{"Referer": {"http://127.0.0.1:305/v2/busybox/manifests/latest"}}, false},
		{"the same by another name", "Docker.example:305", http.Header{"Referer": {"https://docker.EXAMPLE:305/v2/busybox/manifests/latest"}}, false},
		{"a person who typed the address", "localhost:305", http.Header{"Sec-Fetch-Site": {"none"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}, false},

		{"a page of another host", "127.0.0.1:305", http.Header{"Referer": {"http://evil.test/"}}, true},
		{"a page of another port", "127.0.0.1:305", http.Header{"Referer": {"http://127.0.0.1:8080/"}}, true},
		{"a page of a host that begins like ours", "127.0.0.1:305", http.Header{"Referer": {"http://127.0.0.1:305.evil.test/"}}, true},
		{"our host as a user name", "127.0.0.1:305", http.Header{"Referer": {"http://127.0.0.1:305@evil.test/"}}, true},
		{"another scheme", "127.0.0.1:305", http.Header{"Referer": {"ftp://127.0.0.1:305/"}}, true},
		{"no URL", "127.0.0.1:305", http.Header{"Referer": {"http://%zz"}}, true},
		{"an empty Referer", "127.0.0.1:305", http.Header{"Referer": {""}}, true},
		{"two Referers", "127.0.0.1:305", http.Header{"Referer": {"http://127.0.0.1:305/", "http://evil.test/"}}, true},
		{"Origin decides before Referer", "127.0.0.1:305", http.Header{"Origin": {"null"}, "Referer": {"http://127.0.0.1:305/"}}, true},
		{"our own page's script", "127.0.0.1:305", http.Header{"Sec-Fetch-Site": {"same-origin"}, "Referer": {"http://127.0.0.1:305/"}}, true},
		{"a page of another site", "127.0.0.1:305", http.Header{"Sec-Fetch-Site": {"cross-site"}}, true},
		{"Sec-Fetch-Mode alone", "127.0.0.1:305", http.Header{"Sec-Fetch-Mode": {"no-cors"}}, true},
		{"Sec-Fetch-Site twice", "127.0.0.1:305", http.Header{"Sec-Fetch-Site": {"none", "cross-site"}}, true},
	} {
		if got := fromWebPage(&http.Request{Host: tt.host, Header: tt.header}); got != tt.page {
			t.Errorf("%s: a web page %v, want %v", tt.name, got, tt.page)
		}
	}
}
