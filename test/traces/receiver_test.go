package traces

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver is a receiver of OTLP by HTTP. It decodes the message of the specification's service.
type receiver struct {
	*httptest.Server
	t testing.TB

	mu    sync.Mutex
	spans []span
}

// span is a span, with its attributes as text.
type span struct {
	*trace.Span
	attributes map[string]string
}

func startReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{t: t}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil || q.URL.Path != "/v1/traces" || q.Header.Get("Content-Type") != "application/x-protobuf" {
		r.t.Errorf("%s with %s: %v", q.URL.Path, q.Header.Get("Content-Type"), err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var message collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &message); err != nil {
		r.t.Error(err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range message.ResourceSpans {
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				r.spans = append(r.spans, span{s, attributes(s.Attributes)})
			}
		}
	}
	answer, err := proto.Marshal(&collector.ExportTraceServiceResponse{})
	if err != nil {
		r.t.Error(err)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(answer)
}

func attributes(list []*common.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range list {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			all[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			all[a.Key] = fmt.Sprint(v.IntValue)
		case *common.AnyValue_BoolValue:
			all[a.Key] = fmt.Sprint(v.BoolValue)
		default:
			all[a.Key] = a.Value.String()
		}
	}
	return all
}

// tree is the spans of one trace.
type tree []span

// traces returns the traces with a pull of an image, the one that began first first.
func (r *receiver) traces(image string) (list []tree) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.spans, func(a, b span) int { return int(int64(a.StartTimeUnixNano) - int64(b.StartTimeUnixNano)) }) //nolint:gosec // they are of the same minutes
	for _, root := range r.spans {
		if root.Name != "pull" || root.attributes["container.image.name"] != image {
			continue
		}
		var all tree
		for _, s := range r.spans {
			if string(s.TraceId) == string(root.TraceId) {
				all = append(all, s)
			}
		}
		list = append(list, all)
	}
	return list
}

// path returns the name of a span, with those of the spans that it is part of.
func (t tree) path(s span) string {
	for _, parent := range t {
		if string(parent.SpanId) == string(s.ParentSpanId) {
			return t.path(parent) + " > " + s.Name
		}
	}
	return s.Name
}

// with returns the spans whose path ends so.
func (t tree) with(end string) (list []span) {
	for _, s := range t {
		if path := t.path(s); path == end || strings.HasSuffix(path, " > "+end) {
			list = append(list, s)
		}
	}
	return list
}

// String draws the trace.
func (t tree) String() string {
	var b strings.Builder
	for _, s := range t {
		fmt.Fprintf(&b, "%s %v\n", t.path(s), s.attributes)
	}
	return b.String()
}

// id returns the identifier of the trace.
func (t tree) id() string { return hex.EncodeToString(t[0].TraceId) }
