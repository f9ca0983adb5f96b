package daemon

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

func TestADiagnosisEndsWithTheRateLimitThatPullsMet(t *testing.T) {
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	defer registry.Close()
	host := strings.TrimPrefix(registry.URL, "http://")
	soon := time.Now().Add(time.Hour)
	limit := func(identity string, remaining int64) observe.RateLimit {
		return observe.RateLimit{Registry: "r.test", Upstream: host, Identity: identity, Limit: 100, Remaining: remaining, Seen: time.Now(), Reset: soon}
	}
	for name, test := range map[string]struct {
		limits     []observe.RateLimit
		text, code string
	}{
		"none reported":          {nil, "none that " + host + " reported lately", ""},
		"some left":              {[]observe.RateLimit{limit("anonymous", 40)}, "40 of 100 requests remain", ""},
		"none left":              {[]observe.RateLimit{limit("anonymous", 0)}, "0 of 100 requests remain, until " + soon.UTC().Format("15:04 UTC"), "rate-limit-used-up"},
		"the login's counts":     {[]observe.RateLimit{limit("anonymous", 0), limit("login", 7)}, "7 of 100 requests remain", ""},
		"the login's is used up": {[]observe.RateLimit{limit("anonymous", 9), limit("login", 0)}, "with sidemirror's login", "rate-limit-used-up"},
		"a client's own":         {[]observe.RateLimit{limit("client", 0)}, "none that", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			d, _ := serving(t, "[registry.\"r.test\"]\nupstreams = [\""+registry.URL+"\"]\n", &log)
			for _, l := range test.limits {
				d.activity.RateLimited(l)
			}
			found, err := d.Diagnose(t.Context(), "r.test")
			if err != nil || len(found) != 1 {
				t.Fatalf("%+v, %v", found, err)
			}
			last := found[0].Steps[len(found[0].Steps)-1]
			text, code := last.Text, ""
			if last.Problem != nil {
				text, code = last.Problem.Text, string(last.Problem.Code)
			}
			if last.Name != "rate limit" || !strings.Contains(text, test.text) || code != test.code {
				t.Errorf("the last step is %s: %q, code %q; want %q, code %q", last.Name, text, code, test.text, test.code)
			}
		})
	}
}

func TestABrokenUpstreamHasNoStepAboutItsRateLimit(t *testing.T) {
	var log bytes.Buffer
	d, _ := serving(t, "[registry.\"r.test\"]\nupstreams = [\"http://127.0.0.1:1\"]\n", &log)
	found, err := d.Diagnose(t.Context(), "r.test")
	if err != nil || len(found) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	steps := found[0].Steps
	if last := steps[len(steps)-1]; last.Problem == nil || last.Problem.Code != "upstream-unreachable" {
		t.Errorf("the last step is %+v", last)
	}
}
