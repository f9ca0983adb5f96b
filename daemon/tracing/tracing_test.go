package tracing

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

// sink is a receiver of OTLP that remembers what it gets.
type sink struct {
	*httptest.Server
	mu       sync.Mutex
	spans    []*tracepb.Span
	requests []*http.Request
	resource []*commonpb.KeyValue
	status   []int // of the next responses; 200 when they are used up
}

func newSink(t *testing.T) *sink {
	t.Helper()
	s := &sink{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		data, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		s.requests = append(s.requests, r)
		if len(s.status) > 0 {
			w.WriteHeader(s.status[0])
			s.status = s.status[1:]
			return
		}
		var all tracepb.TracesData
		if err := proto.Unmarshal(data, &all); err != nil {
			t.Error(err)
		}
		for _, of := range all.ResourceSpans {
			s.resource = of.GetResource().GetAttributes()
			for _, scope := range of.ScopeSpans {
				s.spans = append(s.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// tracer returns a Tracer with those variables, and the function that ends it.
func tracer(t *testing.T, variables ...string) (made *Tracer, end func()) {
	t.Helper()
	made, err := New("1.2.3", environment(variables...))
	if err != nil || made == nil {
		t.Fatalf("%v, %v", made, err)
	}
	end = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		made.Close(ctx)
	})
	t.Cleanup(end)
	return made, end
}

func environment(variables ...string) func(string) string {
	return func(name string) string {
		for _, v := range variables {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value
			}
		}
		return ""
	}
}

func attributes(list []*commonpb.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range list {
		switch v := a.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			all[a.Key] = v.StringValue
		case *commonpb.AnyValue_ArrayValue:
			all[a.Key] = v.ArrayValue.Values[0].GetStringValue()
		default:
			all[a.Key] = strings.TrimSpace(strings.SplitN(a.Value.String(), ":", 2)[1])
		}
	}
	return all
}

// tree returns the names of the spans of a trace, each with the names of those that it is part of.
func (s *sink) tree(trace string) (paths []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	by := map[string]*tracepb.Span{}
	for _, one := range s.spans {
		by[string(one.SpanId)] = one
	}
	for _, one := range s.spans {
		if hex.EncodeToString(one.TraceId) != trace {
			continue
		}
		path := one.Name
		for parent := by[string(one.ParentSpanId)]; parent != nil; parent = by[string(parent.ParentSpanId)] {
			path = parent.Name + " > " + path
		}
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// traces returns the traces, in the order of their first spans.
func (s *sink) traces() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.SortedFunc(slices.Values(s.spans), func(a, b *tracepb.Span) int { return cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano) })
	for _, one := range all {
		if id := hex.EncodeToString(one.TraceId); !slices.Contains(list, id) {
			list = append(list, id)
		}
	}
	return list
}

// asked is a request of containerd's at a time of the test.
func asked(at time.Duration, kind, tag, digest string) observe.Request {
	return observe.Request{
		Registry: "docker.io", Repository: "library/alpine", Kind: kind, Tag: tag, Digest: digest, Method: "GET",
		Started: start.Add(at), Trusted: true, Remote: "127.0.0.1:4000", UserAgent: "containerd/2.1.4",
	}
}

var start = time.Now().Add(-time.Hour)

// serve lets a request begin and end.
func serve(t *Tracer, r observe.Request, steps ...observe.Step) {
	s := t.Begin(&r, "")
	for _, step := range steps {
		of := s.Begin(step)
		of.Begin(observe.Step{Kind: observe.StepConnect, Host: "192.0.2.1:443"}).End(observe.Result{})
		of.End(observe.Result{Status: 200, Bytes: 100})
	}
	r.Status, r.Bytes, r.Source, r.Cache, r.Duration = 200, 100, observe.Upstream, "fill", 50*time.Millisecond
	s.End(observe.Result{Request: &r})
}

func TestOnePullIsOneTrace(t *testing.T) {
	s := newSink(t)
	for name, variables := range map[string][]string{
		"plain":      {"OTEL_EXPORTER_OTLP_ENDPOINT=" + s.URL},
		"compressed": {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + s.URL + "/v1/traces", "OTEL_EXPORTER_OTLP_ENDPOINT=http://unused.invalid", "OTEL_EXPORTER_OTLP_COMPRESSION=gzip"},
	} {
		s.spans, s.requests = nil, nil
		made, end := tracer(t, append(variables, "OTEL_EXPORTER_OTLP_HEADERS=api-key=a%20key,x=y")...)
		exchange := observe.Step{Kind: observe.StepExchange, Method: "GET", Scheme: "https", Host: "registry-1.docker.io", Path: "/v2/library/alpine/manifests/3.20"}
		serve(made, asked(0, "manifest", "3.20", ""), exchange)
		serve(made, asked(time.Second, "manifest", "", "sha256:aa"))
		serve(made, asked(2*time.Second, "blob", "", "sha256:bb"), observe.Step{Kind: observe.StepExchange, Method: "GET", Scheme: "https", Host: "cdn.example:8443", Redirected: true})
		end()
		traces := s.traces()
		if len(traces) != 1 {
			t.Fatalf("%s: %d traces", name, len(traces))
		}
		want := []string{
			"pull",
			"pull > GET /v2/{name}/blobs/{digest}", "pull > GET /v2/{name}/blobs/{digest} > GET", "pull > GET /v2/{name}/blobs/{digest} > GET > connect",
			"pull > GET /v2/{name}/manifests/{reference}", "pull > GET /v2/{name}/manifests/{reference}",
			"pull > GET /v2/{name}/manifests/{reference} > GET", "pull > GET /v2/{name}/manifests/{reference} > GET > connect",
		}
		if got := s.tree(traces[0]); !slices.Equal(got, want) {
			t.Errorf("%s: the trace is %q", name, got)
		}
		for _, one := range s.spans {
			all := attributes(one.Attributes)
			switch {
			case one.Name == "pull":
				if all["container.image.name"] != "docker.io/library/alpine" || all["container.image.tags"] != "3.20" || all["sidemirror.engine"] != "containerd" ||
					all["sidemirror.pull.requests"] != "3" || all["sidemirror.pull.bytes.upstream"] != "300" || one.EndTimeUnixNano-one.StartTimeUnixNano != uint64(2050*time.Millisecond) {
					t.Errorf("%s: the pull is %v", name, all)
				}
			case strings.HasPrefix(one.Name, "GET /v2/{name}/blobs"):
				if all["sidemirror.blob.digest"] != "sha256:bb" || all["sidemirror.source"] != "upstream" || all["http.response.body.size"] != "100" || one.Kind != tracepb.Span_SPAN_KIND_SERVER {
					t.Errorf("%s: the layer is %v", name, all)
				}
			case all["sidemirror.redirected"] == "true":
				if all["server.address"] != "cdn.example" || all["server.port"] != "8443" || all["url.full"] != "" {
					t.Errorf("%s: the exchange with the store is %v", name, all)
				}
			}
		}
		r := s.requests[0]
		if r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("Api-Key") != "a key" || r.Header.Get("X") != "y" {
			t.Errorf("%s: the request is for %s with %v", name, r.URL, r.Header)
		}
		if about := attributes(s.resource); about["service.name"] != "sidemirror" || about["service.version"] != "1.2.3" || about["host.name"] == "" {
			t.Errorf("%s: the resource is %v", name, about)
		}
	}
}

func TestPullsAreToldApart(t *testing.T) {
	other := asked(3*time.Second, "manifest", "3.20", "")
	other.UserAgent = "docker/27.3.1"
	elsewhere := asked(3*time.Second, "manifest", "3.20", "")
	elsewhere.Repository = "library/redis"
	for name, test := range map[string]struct {
		requests []observe.Request
		want     int
	}{
		"a tag twice":                {[]observe.Request{asked(0, "manifest", "a", ""), asked(time.Second, "manifest", "a", "")}, 1},
		"layers much later":          {[]observe.Request{asked(0, "manifest", "a", ""), asked(50*time.Second, "blob", "", "sha256:b")}, 1},
		"another tag":                {[]observe.Request{asked(0, "manifest", "a", ""), asked(time.Second, "manifest", "b", "")}, 2},
		"the tag again after layers": {[]observe.Request{asked(0, "manifest", "a", ""), asked(1, "blob", "", "sha256:b"), asked(10*time.Second, "manifest", "a", "")}, 2},
		"a minute without a request": {[]observe.Request{asked(0, "manifest", "a", ""), asked(2*time.Minute, "blob", "", "sha256:b")}, 2},
		"another engine":             {[]observe.Request{asked(0, "manifest", "3.20", ""), other}, 2},
		"another repository":         {[]observe.Request{asked(0, "manifest", "3.20", ""), elsewhere}, 2},
	} {
		s := newSink(t)
		made, end := tracer(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+s.URL)
		for _, r := range test.requests {
			serve(made, r)
		}
		end()
		if got := len(s.traces()); got != test.want {
			t.Errorf("%s: %d traces, want %d", name, got, test.want)
		}
	}
}

func TestARequestJoinsTheTraceOfItsCaller(t *testing.T) {
	s := newSink(t)
	made, end := tracer(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+s.URL)
	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	send := func(r observe.Request, traceparent string) bool {
		one := made.Begin(&r, traceparent)
		if one == nil {
			return false
		}
		r.Status = 200
		one.End(observe.Result{Request: &r})
		return true
	}
	base := observe.Request{Kind: "base", Method: "GET", Started: start}
	if !send(asked(0, "blob", "", "sha256:b"), "00-"+trace+"-"+parent+"-01") || !send(base, "00-"+trace+"-"+parent+"-01") {
		t.Error("a request is not followed")
	}
	if send(base, "") {
		t.Error("a request for no image is followed")
	}
	for _, wrong := range []string{"00-" + strings.Repeat("0", 32) + "-" + parent + "-01", "00-xyz", "ff-" + trace + "-" + parent + "-01", strings.Repeat("a", 1<<16)} {
		send(asked(0, "blob", "", "sha256:b"), wrong)
	}
	end()
	traces := s.traces()
	if len(traces) != 2 || !slices.Contains(traces, trace) {
		t.Fatalf("the traces are %q, want one of the caller's and one of a pull", traces)
	}
	if got := s.tree(trace); !slices.Equal(got, []string{"GET /v2/", "GET /v2/{name}/blobs/{digest}"}) {
		t.Errorf("the caller's trace has %q", got)
	}
	for _, one := range s.spans {
		if hex.EncodeToString(one.TraceId) == trace && hex.EncodeToString(one.ParentSpanId) != parent {
			t.Errorf("the parent of %s is %x", one.Name, one.ParentSpanId)
		}
	}
}

func TestPullsAreBounded(t *testing.T) {
	s := newSink(t)
	made, end := tracer(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+s.URL)
	for i := range 2 * maxPulls {
		r := asked(time.Duration(i), "manifest", "a", "")
		r.Repository = "library/" + strings.Repeat("a", i+1)
		serve(made, r)
	}
	if n, m := len(made.pulls.all), len(made.pulls.latest); n != maxPulls || m != maxPulls {
		t.Errorf("%d and %d pulls are held, want %d", n, m, maxPulls)
	}
	end()
	if n := len(s.traces()); n != 2*maxPulls {
		t.Errorf("%d traces, want %d", n, 2*maxPulls)
	}
	if n := len(made.pulls.all); n != 0 {
		t.Errorf("%d pulls are held after the end", n)
	}
}

func TestAPullThatIsOverIsSentAndForgotten(t *testing.T) {
	s := newSink(t)
	made, end := tracer(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+s.URL)
	serve(made, asked(0, "manifest", "a", "")) // an hour ago
	running := made.pulls.begin(new(asked(0, "manifest", "b", "")))
	made.pulls.settle()
	if len(made.pulls.all) != 1 || running.sent {
		t.Errorf("%d pulls are held, want the one that has a request under way", len(made.pulls.all))
	}
	end()
}

func TestNoRequestWaitsForAReceiverThatIsAway(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	made, end := tracer(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+gone.URL, "OTEL_EXPORTER_OTLP_TIMEOUT=50")
	for range 5000 { // more than the queue holds
		serve(made, asked(0, "manifest", "a", ""))
	}
	end()
	if p := made.Problem(); p == nil || p.Code != "traces-not-received" {
		t.Errorf("the problem is %v", p)
	}
}

func TestAReceiverThatIsAwayIsAProblemUntilItTakesSpans(t *testing.T) {
	s := newSink(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	at := mustParse(t, gone.URL)
	at.User = url.UserPassword("user", "secret-password")
	r := newReceiver(settings{endpoint: at, timeout: 100 * time.Millisecond})
	err := r.UploadTraces(context.Background(), nil)
	p := r.problem()
	if err == nil || p == nil || p.Code != "traces-not-received" || strings.Contains(p.Error(), "secret") || !strings.Contains(p.Error(), "cannot be reached") {
		t.Errorf("the problem is %v", p)
	}
	r.endpoint, r.timeout = mustParse(t, s.URL), 20*time.Second
	if err := r.UploadTraces(context.Background(), nil); err != nil || r.problem() != nil {
		t.Errorf("when the receiver is back: %v, %v", err, r.problem())
	}
	_ = r.Stop(context.Background())
}

func TestABatchIsSentAgainIfTheReceiverIsBusyAndNotIfItRefuses(t *testing.T) {
	for status, want := range map[int]int{503: 2, 429: 2, 400: 1, 401: 1, 307: 1} {
		s := newSink(t)
		s.status = []int{status}
		r := newReceiver(settings{endpoint: mustParse(t, s.URL), timeout: 20 * time.Second})
		err := r.UploadTraces(context.Background(), []*tracepb.ResourceSpans{{}})
		if len(s.requests) != want || (err == nil) != (want == 2) {
			t.Errorf("after %d it was asked %d times: %v", status, len(s.requests), err)
		}
		_ = r.Stop(context.Background())
	}
}

func mustParse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
