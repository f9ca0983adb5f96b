package upstream

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

func TestRateLimitsAreReadAsRegistriesSendThem(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for name, test := range map[string]struct {
		status int
		header []string
		want   observe.RateLimit
		none   bool
	}{
		"none":       {status: 200, none: true},
		"Docker Hub": {200, []string{"RateLimit-Limit", "100;w=21600", "RateLimit-Remaining", "98;w=21600"}, observe.RateLimit{Limit: 100, Remaining: 98, Window: 6 * time.Hour}, false},
		"Docker Hub, used up": {429, []string{"RateLimit-Limit", "100;w=21600", "RateLimit-Remaining", "0;w=21600", "Retry-After", "60"},
			observe.RateLimit{Limit: 100, Window: 6 * time.Hour, Reset: now.Add(time.Minute)}, false},
		"GitLab": {200, []string{"RateLimit-Limit", "60", "RateLimit-Remaining", "59", "RateLimit-Reset", "1700000060"}, observe.RateLimit{Limit: 60, Remaining: 59, Reset: now.Add(time.Minute)}, false},
		"the draft of the IETF": {200, []string{"RateLimit-Limit", "10", "RateLimit-Remaining", "5", "RateLimit-Reset", "30"},
			observe.RateLimit{Limit: 10, Remaining: 5, Reset: now.Add(30 * time.Second)}, false},
		"a 429 alone":        {429, nil, observe.RateLimit{Limit: -1}, false},
		"only what remains":  {200, []string{"RateLimit-Remaining", " 7 ; w=60 "}, observe.RateLimit{Limit: -1, Remaining: 7}, false},
		"not a number":       {200, []string{"RateLimit-Remaining", "many"}, observe.RateLimit{}, true},
		"negative":           {200, []string{"RateLimit-Remaining", "-1"}, observe.RateLimit{}, true},
		"out of all bounds":  {200, []string{"RateLimit-Remaining", "999999999999999999"}, observe.RateLimit{}, true},
		"a limit of nothing": {200, []string{"RateLimit-Limit", "x;w=y", "RateLimit-Remaining", "3", "RateLimit-Reset", "-5"}, observe.RateLimit{Limit: -1, Remaining: 3}, false},
	} {
		t.Run(name, func(t *testing.T) {
			resp := &http.Response{StatusCode: test.status, Header: http.Header{}}
			for i := 0; i < len(test.header); i += 2 {
				resp.Header.Set(test.header[i], test.header[i+1])
			}
			got, ok := RateLimitOf(resp, now)
			test.want.Seen = now
			if ok == test.none || ok && got != test.want {
				t.Errorf("got %+v, %v, want %+v", got, ok, test.want)
			}
		})
	}
}

func TestClosedConnectionsAreCountedOnce(t *testing.T) {
	var open observedConnections
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	u := newUpstream(t, Config{URL: mustURL(s.URL), Observer: &open})
	resp, err := u.Do(t.Context(), anonymous("/v2/"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if open.get() != 1 {
		t.Errorf("%d connections after a request, want 1", open.get())
	}
	u.Close()
	u.Close()
	for deadline := time.Now().Add(20 * time.Second); open.get() != 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := open.get(); n != 0 {
		t.Errorf("%d connections after the upstream was closed, want 0", n)
	}
}

// observedConnections counts the connections that are open.
type observedConnections struct {
	observe.Nothing
	mu  sync.Mutex
	now int
}

func (o *observedConnections) ConnectionsChanged(_ string, by int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now += by
}

func (o *observedConnections) get() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now
}
