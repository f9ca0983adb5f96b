package activity

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

var start = time.Date(2026, 3, 4, 5, 6, 0, 0, time.UTC)

// request is one of root's containerd on Docker Hub's alpine that begins after seconds and takes one.
func request(seconds float64, kind string, change func(*observe.Request)) *observe.Request {
	q := &observe.Request{
		Registry: "docker.io", Repository: "library/alpine", Kind: kind, Method: "GET", Status: 200,
		Started: start.Add(time.Duration(seconds * float64(time.Second))), Duration: time.Second, Trusted: true, UserAgent: "containerd/2.1.4",
	}
	if change != nil {
		change(q)
	}
	return q
}

func tag(name string) func(*observe.Request) {
	return func(q *observe.Request) { q.Tag = name }
}

func from(s observe.Source, cache string, n int64) func(*observe.Request) {
	return func(q *observe.Request) { q.Source, q.Cache, q.Bytes = s, cache, n }
}

func record(all ...*observe.Request) Activity {
	r := New()
	for _, q := range all {
		r.RequestEnded(q)
	}
	return r.Activity(start.Add(10 * time.Minute))
}

// summary returns each pull as "image outcome requests".
func summary(a Activity) (list []string) {
	for _, p := range a.Pulls {
		list = append(list, fmt.Sprintf("%s %s %d", p.Image, p.Outcome, p.Requests))
	}
	return list
}

func TestRequestsForOneImageAreOnePull(t *testing.T) {
	const alpine = "docker.io/library/alpine"
	for name, test := range map[string]struct {
		requests []*observe.Request
		want     []string
	}{
		"nothing": {nil, nil},
		"fetched": {[]*observe.Request{request(0, "manifest", tag("3.20")), request(1, "manifest", nil), request(2, "blob", from(observe.Upstream, "fill", 5)), request(2, "blob", from(observe.Prefetch, "hit", 5))},
			[]string{alpine + ":3.20 fetched 4"}},
		"stored":                     {[]*observe.Request{request(0, "manifest", tag("3.20")), request(1, "manifest", nil), request(2, "blob", from(observe.Cache, "hit", 5))}, []string{alpine + ":3.20 stored 3"}},
		"both":                       {[]*observe.Request{request(0, "manifest", tag("3.20")), request(1, "blob", from(observe.Upstream, "miss", 5)), request(2, "blob", from(observe.Cache, "hit", 5))}, []string{alpine + ":3.20 mixed 3"}},
		"the engine has it already":  {[]*observe.Request{request(0, "manifest", tag("3.20"))}, []string{alpine + ":3.20 checked 1"}},
		"refused":                    {[]*observe.Request{request(0, "manifest", func(q *observe.Request) { q.Tag, q.Failed = "none", true })}, []string{alpine + ":none failed 1"}},
		"by digest":                  {[]*observe.Request{request(0, "manifest", func(q *observe.Request) { q.Digest = "sha256:aa" }), request(1, "blob", from(observe.Cache, "hit", 5))}, []string{alpine + "@sha256:aa stored 2"}},
		"a blob alone":               {[]*observe.Request{request(0, "blob", from(observe.Cache, "hit", 5))}, []string{alpine + " stored 1"}},
		"another tag":                {[]*observe.Request{request(0, "manifest", tag("a")), request(1, "manifest", tag("b"))}, []string{alpine + ":b checked 1", alpine + ":a checked 1"}},
		"the same tag twice at once": {[]*observe.Request{request(0, "manifest", tag("a")), request(1, "manifest", nil), request(2, "manifest", tag("a"))}, []string{alpine + ":a checked 3"}},
		"the same tag again later":   {[]*observe.Request{request(0, "manifest", tag("a")), request(1, "manifest", nil), request(9, "manifest", tag("a"))}, []string{alpine + ":a checked 1", alpine + ":a checked 2"}},
		"after a pause":              {[]*observe.Request{request(0, "manifest", tag("a")), request(90, "blob", from(observe.Cache, "hit", 5))}, []string{alpine + " stored 1", alpine + ":a checked 1"}},
		"another engine":             {[]*observe.Request{request(0, "manifest", tag("a")), request(1, "manifest", func(q *observe.Request) { q.UserAgent = "docker/27" })}, []string{alpine + " checked 1", alpine + ":a checked 1"}},
		"another user":               {[]*observe.Request{request(0, "manifest", tag("a")), request(1, "manifest", func(q *observe.Request) { q.UID = 7 })}, []string{alpine + " checked 1", alpine + ":a checked 1"}},
		"other hosts": {[]*observe.Request{request(0, "manifest", func(q *observe.Request) { q.UID, q.Remote = -1, "10.0.0.1:5" }), request(1, "manifest", func(q *observe.Request) { q.UID, q.Remote = -1, "10.0.0.2:5" })},
			[]string{alpine + " checked 1", alpine + " checked 1"}},
		"not a pull": {[]*observe.Request{request(0, "tags", nil), request(0, "base", nil), request(0, "", nil)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := summary(record(test.requests...)); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestAPullHasItsBytesAndItsSpeed(t *testing.T) {
	a := record(request(0, "manifest", tag("3.20")), request(1, "blob", from(observe.Upstream, "fill", 600)), request(1, "blob", from(observe.Cache, "hit", 300)), request(3, "blob", from(observe.Prefetch, "hit", 100)))
	if len(a.Pulls) != 1 {
		t.Fatalf("%+v", a.Pulls)
	}
	p := a.Pulls[0]
	if p.Bytes != (Bytes{Cache: 300, Upstream: 600, Prefetch: 100}) || p.Seconds != 4 || p.Speed != 250 || p.Engine != "containerd" || !p.Started.Equal(start) {
		t.Errorf("%+v", p)
	}
	if len(a.Engines) != 1 || a.Engines[0].Name != "containerd" || !a.Engines[0].Last.Equal(start.Add(4*time.Second)) {
		t.Errorf("engines %+v", a.Engines)
	}
}

func TestTrafficIsCountedByTheMinute(t *testing.T) {
	r := New()
	for _, q := range []*observe.Request{
		request(0, "blob", from(observe.Cache, "hit", 10)), request(0, "blob", from(observe.Upstream, "fill", 20)),
		request(60, "manifest", from(observe.Cache, "stale", 1)), request(60, "manifest", from(observe.Upstream, "", 1)),
		request(60, "manifest", func(q *observe.Request) { q.Failed = true }),
		request(60, "blob", from(observe.Prefetch, "hit", 30)),
	} {
		r.RequestEnded(q)
	}
	a := r.Activity(start.Add(time.Minute))
	if len(a.Minutes) != 60 {
		t.Fatalf("%d minutes, want 60", len(a.Minutes))
	}
	first, second := a.Minutes[58], a.Minutes[59]
	if first.Requests != 2 || first.Hits != 1 || first.Bytes != (Bytes{Cache: 10, Upstream: 20}) || !first.Start.Equal(start) || first.HitRate() != 0.5 {
		t.Errorf("the first minute is %+v", first)
	}
	if second.Requests != 3 || second.Hits != 2 || second.Bytes != (Bytes{Cache: 1, Upstream: 1, Prefetch: 30}) {
		t.Errorf("the second minute is %+v", second)
	}
	if a.Day.Requests != 5 || a.Day.Bytes.Total() != 62 {
		t.Errorf("the day is %+v", a.Day)
	}
	if later := r.Activity(start.Add(2 * time.Hour)); later.Minutes[0].Requests != 0 || later.Day.Requests != 5 || len(later.Pulls) != 0 {
		t.Errorf("two hours later: %+v, %d pulls", later.Day, len(later.Pulls))
	}
	if later := r.Activity(start.Add(25 * time.Hour)); later.Day.Requests != 0 {
		t.Errorf("a day later: %+v", later.Day)
	}
}

func TestUntrustedCallersDoNotPushOutThePullsOfEngines(t *testing.T) {
	r := New()
	r.RequestEnded(request(0, "manifest", tag("of-the-engine")))
	for i := range 5000 {
		r.RequestEnded(request(1, "manifest", func(q *observe.Request) {
			q.Trusted, q.UID, q.Repository, q.Failed = false, 1000, fmt.Sprint("x/", i), true
		}))
	}
	a := r.Activity(start.Add(time.Minute))
	if last := a.Pulls[len(a.Pulls)-1]; len(a.Pulls) != maxUntrusted+1 || !strings.HasSuffix(last.Image, ":of-the-engine") {
		t.Errorf("%d pulls, the first one %+v", len(a.Pulls), last)
	}
	for i := range 5000 {
		r.RequestEnded(request(2, "manifest", func(q *observe.Request) { q.Repository = fmt.Sprint("y/", i) }))
	}
	if n := len(r.Activity(start.Add(time.Minute)).Pulls); n != maxPulls || len(r.pulls.last) > maxPulls {
		t.Errorf("%d pulls and %d keys, want %d at most", n, len(r.pulls.last), maxPulls)
	}
}

func TestRateLimitsAreShownUntilTheyAreOver(t *testing.T) {
	r := New()
	hub := observe.RateLimit{Registry: "docker.io", Upstream: "registry-1.docker.io", Identity: "anonymous", Limit: 100, Remaining: 40, Window: 6 * time.Hour, Seen: start}
	r.RateLimited(hub)
	r.RateLimited(observe.RateLimit{Registry: "docker.io", Upstream: "registry-1.docker.io", Identity: "anonymous", Limit: -1, Seen: start, Reset: start.Add(time.Hour)})
	for i := range 1000 {
		r.RateLimited(observe.RateLimit{Registry: fmt.Sprint("r", i), Limit: -1, Seen: start})
	}
	a := r.Activity(start.Add(time.Minute))
	if l := a.RateLimits[0]; len(a.RateLimits) != maxRateLimits || l.Limit == nil || *l.Limit != 100 || l.Remaining != 0 || !l.Reset.Equal(start.Add(time.Hour)) {
		t.Errorf("%d limits, the first %+v", len(a.RateLimits), l)
	}
	if a := r.Activity(start.Add(2 * time.Hour)); a.RateLimits[0].Registry == "docker.io" {
		t.Error("a limit is shown after its reset")
	}
	if a := r.Activity(start.Add(7 * time.Hour)); len(a.RateLimits) != 0 {
		t.Errorf("%d limits are shown after their windows", len(a.RateLimits))
	}
}

func TestUpstreamsAreBoundedAndThoseOfTheConfigurationStay(t *testing.T) {
	r := New()
	r.Configured([]string{"hub.example"})
	r.UpstreamResponded(observe.Exchange{Upstream: "hub.example", Status: 503})
	r.UpstreamResponded(observe.Exchange{Upstream: "cdn.example", Status: 200, Redirected: true})
	r.ReachChanged("hub.example", errors.New("connection refused"))
	for i := range 1000 {
		r.UpstreamResponded(observe.Exchange{Upstream: fmt.Sprintf("h%03d.example", i), Status: 200})
	}
	a := r.Activity(time.Now())
	u := a.Upstreams[len(a.Upstreams)-1]
	if len(a.Upstreams) != maxUpstreams || u.Name != "hub.example" || u.Reachable || u.Reason != "connection refused" || u.Failures != 1 || u.LastStatus != 503 || u.Changed == nil {
		t.Errorf("%d upstreams, the last one %+v", len(a.Upstreams), u)
	}
	if shown := a.WithoutImages(); len(shown.Upstreams) != 1 || shown.Upstreams[0].Name != "hub.example" || len(shown.Pulls) != 0 {
		t.Errorf("without images: %+v", shown)
	}
	r.ReachChanged("hub.example", nil)
	if u := r.Activity(time.Now()).Upstreams[maxUpstreams-1]; !u.Reachable || u.Reason != "" {
		t.Errorf("within reach again: %+v", u)
	}
}

func TestAnUpstreamIsReachableOnlyIfItResponded(t *testing.T) {
	r := New()
	r.Configured([]string{"a.example", "b.example", "c.example"})
	respond := func(name string, status int) { r.UpstreamResponded(observe.Exchange{Upstream: name, Status: status}) }
	respond("a.example", 0)
	respond("b.example", 401)
	respond("b.example", 0) // one request that failed says nothing of the next
	respond("d.example", 0)
	shown := func() string {
		var list []string
		for _, u := range r.Activity(time.Now()).Upstreams {
			list = append(list, fmt.Sprint(u.Name[:1], " ", u.Reachable))
		}
		return strings.Join(list, ", ")
	}
	if got := shown(); got != "a false, b true, d false" {
		t.Errorf("%s", got)
	}
	if got := r.Reachable(); !maps.Equal(got, map[string]bool{"a.example": false, "b.example": true}) {
		t.Errorf("for the metrics: %v", got)
	}
	r.ReachChanged("b.example", errors.New("connection refused"))
	respond("a.example", 200)
	respond("b.example", 0)
	respond("d.example", 404)
	if got := shown(); got != "a true, b false, d true" {
		t.Errorf("%s", got)
	}
	respond("b.example", 503)
	if u := r.Activity(time.Now()).Upstreams[1]; !u.Reachable || u.Reason != "" {
		t.Errorf("after its response: %+v", u)
	}
}

func TestAnotherConfigurationForgetsWhatItDoesNotNameAndWhatIsOutOfReach(t *testing.T) {
	r := New()
	r.Configured([]string{"removed.example", "away.example", "stays.example"})
	for _, name := range []string{"removed.example", "away.example", "stays.example", "other.example"} {
		r.UpstreamResponded(observe.Exchange{Upstream: name, Status: 200})
	}
	r.ReachChanged("away.example", errors.New("connection refused"))
	r.Configured([]string{"away.example", "stays.example"})
	var names []string
	for _, u := range r.Activity(time.Now()).Upstreams {
		names = append(names, u.Name)
	}
	if got := strings.Join(names, " "); got != "other.example stays.example" {
		t.Errorf("known are %s", got)
	}
	if got := r.Reachable(); !maps.Equal(got, map[string]bool{"stays.example": true}) {
		t.Errorf("for the metrics: %v", got)
	}
}

func TestTheRecordIsSafeForConcurrentUse(t *testing.T) {
	r := New()
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for n := range 200 {
				r.RequestEnded(request(float64(n), "blob", func(q *observe.Request) { q.UID = int64(i) }))
				r.UpstreamResponded(observe.Exchange{Upstream: "u", Status: 200})
				r.RateLimited(observe.RateLimit{Registry: "r"})
				_ = r.Activity(time.Now())
			}
		})
	}
	wait.Wait()
	if u := r.Activity(time.Now()).Upstreams; len(u) != 1 || u[0].Requests != 1600 {
		t.Errorf("%+v", u)
	}
}

func BenchmarkRequestEnded(b *testing.B) {
	r := New()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		q := request(0, "manifest", tag("3.20"))
		for pb.Next() {
			r.RequestEnded(q)
		}
	})
}
