package tracing

import (
	"context"
	"net"
	"net/url"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

// Attributes that the conventions of OpenTelemetry have no name for.
const (
	keyEngine     = attribute.Key("sidemirror.engine")
	keyTrusted    = attribute.Key("sidemirror.caller.trusted")
	keyCache      = attribute.Key("sidemirror.cache")
	keySource     = attribute.Key("sidemirror.source")
	keyBlob       = attribute.Key("sidemirror.blob.digest")
	keyRedirected = attribute.Key("sidemirror.redirected")
	keyRequests   = attribute.Key("sidemirror.pull.requests")
	keyFailures   = attribute.Key("sidemirror.pull.failures")
	keyBytes      = "sidemirror.pull.bytes." // and the source
)

// routes are the paths of kinds of requests, without what differs between requests of a kind.
var routes = map[string]string{
	"base":      "/v2/",
	"manifest":  "/v2/{name}/manifests/{reference}",
	"blob":      "/v2/{name}/blobs/{digest}",
	"tags":      "/v2/{name}/tags/list",
	"referrers": "/v2/{name}/referrers/{digest}",
}

// beginPull begins the span of a pull with its first request.
func (t *Tracer) beginPull(p *pull, r *observe.Request) {
	p.context, p.span = t.tracer.Start(context.Background(), "pull", trace.WithTimestamp(r.Started), trace.WithAttributes(
		semconv.ContainerImageName(r.Registry+"/"+r.Repository), keyEngine.String(p.key.Engine), keyTrusted.Bool(r.Trusted)))
}

// send ends the span of a pull, at the end of its last request.
func (p *pull) send() {
	if p.sent {
		return
	}
	p.sent = true
	all := []attribute.KeyValue{keyRequests.Int(p.requests), keyFailures.Int(p.failures)}
	if p.tag != "" {
		all = append(all, semconv.ContainerImageTags(p.tag))
	}
	if p.digest != "" {
		all = append(all, semconv.OCIManifestDigest(p.digest))
	}
	for source, n := range p.bytes {
		if s := observe.Source(source); s != observe.Nowhere {
			all = append(all, attribute.Int64(keyBytes+s.String(), n))
		}
	}
	p.span.SetAttributes(all...)
	if p.failures > 0 && p.failures == p.requests {
		p.span.SetStatus(codes.Error, "no request was served")
	}
	p.span.End(trace.WithTimestamp(p.last))
}

// span is a step of a request. It implements [observe.Span].
type span struct {
	of      *Tracer
	context context.Context
	trace.Span
}

// requestSpan is a request of a client. It implements [observe.Span].
type requestSpan struct {
	span
	pull *pull // nil if the caller named a trace
}

// beginRequest begins the span of a client's request in ctx, the context of its pull or of the
// caller's own trace.
func (t *Tracer) beginRequest(ctx context.Context, p *pull, r *observe.Request) observe.Span {
	name, all := r.Method, []attribute.KeyValue{
		semconv.HTTPRequestMethodKey.String(r.Method), semconv.UserAgentOriginal(r.UserAgent),
		keyEngine.String(observe.Engine(r.UserAgent)), keyTrusted.Bool(r.Trusted),
	}
	if route := routes[r.Kind]; route != "" {
		name += " " + route
		all = append(all, semconv.HTTPRoute(route))
	}
	if host, _, err := net.SplitHostPort(r.Remote); err == nil {
		all = append(all, semconv.ClientAddress(host))
	}
	if r.Repository != "" {
		all = append(all, semconv.ContainerImageName(r.Registry+"/"+r.Repository))
	}
	if r.Tag != "" {
		all = append(all, semconv.ContainerImageTags(r.Tag))
	}
	ctx, s := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(r.Started), trace.WithAttributes(all...))
	return &requestSpan{span{t, ctx, s}, p}
}

// End implements [observe.Span].
func (s *requestSpan) End(result observe.Result) {
	r := result.Request
	all := []attribute.KeyValue{semconv.HTTPResponseStatusCode(r.Status), semconv.HTTPResponseBodySizeKey.Int64(r.Bytes)}
	switch {
	case r.Digest == "":
	case r.Kind == "manifest":
		all = append(all, semconv.OCIManifestDigest(r.Digest))
	default:
		all = append(all, keyBlob.String(r.Digest))
	}
	if r.Cache != "" {
		all = append(all, keyCache.String(r.Cache))
	}
	if r.Source != observe.Nowhere {
		all = append(all, keySource.String(r.Source.String()))
	}
	switch {
	case r.Status >= 500: // by the conventions, another status is the client's mistake
		all = append(all, semconv.ErrorTypeKey.String(strconv.Itoa(r.Status)))
		s.SetStatus(codes.Error, "")
	case r.Failed && r.Status < 400:
		all = append(all, semconv.ErrorTypeKey.String("broken_off"))
		s.SetStatus(codes.Error, "the response broke off")
	}
	s.SetAttributes(all...)
	s.Span.End(trace.WithTimestamp(r.Started.Add(r.Duration)))
	if s.pull != nil {
		s.of.pulls.end(s.pull, r)
	}
}

// Begin implements [observe.Span].
func (s *span) Begin(step observe.Step) observe.Span {
	name, kind := "", trace.SpanKindInternal
	var all []attribute.KeyValue
	switch step.Kind {
	case observe.StepExchange:
		name, kind = step.Method, trace.SpanKindClient
		all = exchange(step)
	case observe.StepToken:
		name, all = "token", server(step.Host)
	case observe.StepFetchAhead:
		name, all = "prefetch", []attribute.KeyValue{keyBlob.String(step.Digest)}
	case observe.StepLookup:
		name, all = "DNS lookup", []attribute.KeyValue{semconv.DNSQuestionName(step.Host)}
	case observe.StepConnect:
		name = "connect"
		if host, port, err := net.SplitHostPort(step.Host); err == nil {
			n, _ := strconv.Atoi(port)
			all = []attribute.KeyValue{semconv.NetworkPeerAddress(host), semconv.NetworkPeerPort(n)}
		}
	case observe.StepHandshake:
		name, all = "TLS handshake", server(step.Host)
	}
	ctx, begun := s.of.tracer.Start(s.context, name, trace.WithSpanKind(kind), trace.WithAttributes(all...))
	return &span{s.of, ctx, begun}
}

// exchange returns what is known of a request to an upstream before it is sent.
func exchange(step observe.Step) []attribute.KeyValue {
	all := append(server(step.Host), semconv.HTTPRequestMethodKey.String(step.Method), semconv.URLScheme(step.Scheme))
	if step.Path != "" {
		all = append(all, semconv.URLFull((&url.URL{Scheme: step.Scheme, Host: step.Host, Path: step.Path}).String()))
	}
	if step.Redirected {
		all = append(all, keyRedirected.Bool(true))
	}
	return all
}

// server returns the address and the port, if there is one, of a host.
func server(host string) []attribute.KeyValue {
	u := url.URL{Host: host}
	all := []attribute.KeyValue{semconv.ServerAddress(u.Hostname())}
	if n, err := strconv.Atoi(u.Port()); err == nil {
		all = append(all, semconv.ServerPort(n))
	}
	return all
}

// End implements [observe.Span].
func (s *span) End(r observe.Result) {
	if r.Status != 0 {
		s.SetAttributes(semconv.HTTPResponseStatusCode(r.Status), semconv.HTTPResponseBodySizeKey.Int64(r.Bytes))
	}
	if r.Failed {
		if r.Status >= 400 {
			s.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(r.Status)))
		}
		s.SetStatus(codes.Error, r.Reason)
	}
	s.Span.End()
}
