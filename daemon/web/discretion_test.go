package web

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// secrets are the words of busy that only trusted callers may see.
var secrets = []string{"acme/payroll", "mirror.corp.example", "registry.corp.example", "/etc/secret-name.json", "no such host of corp", "247 MB", "chmod"}

// busy is a daemon at which all kinds of things happen. Requests are trusted or not.
func busy(trusted bool) Info {
	info := served
	info.Trusted = func(*http.Request) bool { return trusted }
	info.Live = func() Live {
		now := time.Now()
		return Live{
			At: now, Watched: true, LastPull: now.Add(-17 * time.Second),
			Engines: []Engine{{Name: "docker", Through: Yes}, {Name: "containerd", Home: "k3s", Through: Yes}},
			Problems: []Problem{
				{Code: "credential-file-mode", Title: "A credential file is readable by others", Text: "/etc/secret-name.json has the mode 0644", Hint: "chmod 600 it", Severe: true},
			},
			Pulls: []Pull{
				{Image: "docker.io/acme/payroll:1.4", Engine: "docker", Start: now.Add(-17 * time.Second), Took: 2 * time.Second, Stored: 247_000_000},
				{Image: "registry.corp.example/x/y:1", Start: now.Add(-20 * time.Minute), Took: time.Minute, Fetched: 31_000_000},
			},
			Traffic: []Traffic{{Stored: 247_000_000, Hits: 7, Requests: 7}, {Fetched: 31_000_000, Requests: 4}},
			Upstreams: []Upstream{
				{Registry: "docker.io", Host: "mirror.corp.example", Away: true, Why: "no such host of corp", Since: now.Add(-time.Hour)},
				{Registry: "docker.io", Host: "registry-1.docker.io"},
				{Registry: "registry.corp.example", Host: "registry.corp.example"},
			},
			Budgets: []Budget{
				{Registry: "registry.corp.example", Remaining: 4, Limit: 10},
				{Registry: "docker.io", Remaining: 187, Limit: 200, Login: true, Reset: now.Add(2 * time.Hour)},
			},
			Stored: 8_123_456_789, Room: 20_000_000_000,
		}
	}
	return info
}

func TestTrustedCallerSeesImagesAndDetails(t *testing.T) {
	_, body := get(t, busy(true), "GET", "localhost:305", "/")
	body = strings.ReplaceAll(body, `</span>`, "")
	for _, want := range secrets {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

func TestOthersSeeNoImageAndNoAddress(t *testing.T) {
	direct := func(info Info, header ...string) string {
		_, page := get(t, info, "GET", "localhost:305", "/", header...)
		_, part := get(t, info, "GET", "localhost:305", "/?part=live", header...)
		return page + part
	}
	for name, body := range map[string]string{
		"untrusted":                             direct(busy(false)),
		"through a proxy":                       direct(busy(true), "X-Forwarded-For", "192.0.2.1"),
		"through another proxy":                 direct(busy(true), "Via", "1.1 gateway"),
		"led here by a page":                    direct(busy(true), "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"),
		"led here by a page in an old browser":  direct(busy(true), "Referer", "https://evil.example/"),
		"led here by a page of another port":    direct(busy(true), "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"),
		"a page without a function that trusts": direct(Info{Registries: served.Registries, Live: busy(true).Live}),
	} {
		for _, secret := range secrets {
			if strings.Contains(body, secret) {
				t.Errorf("%s: the page has %s", name, secret)
			}
		}
		if !strings.Contains(body, "show_images = true") || !strings.Contains(body, "A credential file is readable by others") {
			t.Errorf("%s: the page does not say what is left out, and that there is a problem", name)
		}
	}
	open := busy(false)
	open.ShowImages = true
	if _, body := get(t, open, "GET", "localhost:305", "/"); !strings.Contains(body, "acme/payroll") {
		t.Error("page.show_images does not show the images")
	}
}

// An image is known by the number of bytes that it has, and a pull by the moment at which a
// figure changes.
func TestFiguresForOthersChangeAtFullMinutesInRoughSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(20 * time.Second) // from midnight on
		bytes := int64(247_000_000)
		info := Info{Live: func() Live {
			return Live{At: time.Now(), Traffic: []Traffic{{Stored: bytes, Hits: 1, Requests: 1}}}
		}}
		h := Handler(info).(*page)
		r, _ := http.NewRequest("GET", "http://localhost:305/", nil)
		figure := func() int64 {
			l, _ := h.live(r)
			return l.Traffic[0].Stored
		}
		if got := figure(); got != 200_000_000 {
			t.Errorf("247 MB are shown as %d bytes", got)
		}
		bytes = 900_000_000
		time.Sleep(39 * time.Second)
		if got := figure(); got != 200_000_000 {
			t.Errorf("the figure changed within the minute, to %d", got)
		}
		time.Sleep(time.Second)
		if got := figure(); got != 500_000_000 {
			t.Errorf("in the next minute 900 MB are shown as %d bytes", got)
		}
	})
}

func TestRoughSteps(t *testing.T) {
	for n, want := range map[int64]int64{
		-1: 0, 0: 0, 999_999: 0, 1_000_000: 1e6, 1_999_999: 1e6, 2_000_000: 2e6, 4_999_999: 2e6, 9_999_999: 5e6, 10_000_000: 1e7,
		1<<63 - 1: 5e18,
	} {
		if got := roundBytes(n); got != want {
			t.Errorf("%d bytes are shown as %d, want %d", n, got, want)
		}
	}
	for n, want := range map[int64]int64{0: 0, 7: 7, 10: 10, 19: 10, 187: 100, 1<<63 - 1: 9e18} {
		if got := roundCount(n); got != want {
			t.Errorf("%d is shown as %d, want %d", n, got, want)
		}
	}
}

func TestOtherSitesCanOnlyLeadHere(t *testing.T) {
	for _, c := range []struct {
		name   string
		target string
		header []string
		want   int
	}{
		{"typed address", "/", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 200},
		{"link on another site", "/", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 200},
		{"own script", "/?part=live", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}, 200},
		{"curl", "/?part=live", nil, 200},
		{"own origin", "/?part=live", []string{"Origin", "http://localhost:305"}, 200},
		{"frame", "/", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 403},
		{"image", "/", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, 403},
		{"fetch of a page on another port", "/", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "empty"}, 403},
		{"event source", "/?part=live", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"}, 403},
		{"link to the part", "/?part=live", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 403},
		{"prefetch", "/", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Sec-Purpose", "prefetch"}, 403},
		{"origin of another port", "/", []string{"Origin", "http://localhost:8080"}, 403},
		{"origin of another scheme", "/", []string{"Origin", "https://localhost:305"}, 403},
		{"opaque origin", "/", []string{"Origin", "null"}, 403},
		{"two origins", "/", []string{"Origin", "http://localhost:305", "Origin", "https://evil.example"}, 403},
		{"two sites", "/", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Site", "cross-site"}, 403},
		{"script in an old browser", "/?part=live", []string{"Referer", "https://evil.example/a"}, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := get(t, busy(true), "GET", "localhost:305", c.target, c.header...)
			if resp.StatusCode != c.want {
				t.Errorf("status %d, want %d", resp.StatusCode, c.want)
			}
			if c.want == 403 && len(body) > 100 {
				t.Errorf("the refusal has %d bytes", len(body))
			}
		})
	}
}
