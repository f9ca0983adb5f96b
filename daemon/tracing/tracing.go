// Package tracing sends what is done for pulls to a receiver of OpenTelemetry: one pull is one trace,
// with a span for each request, each token, and each connection and request to an upstream.
package tracing

import (
	"context"
	"net/http"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/observe"
)

// longestValue bounds the text of an attribute, in bytes, unless a variable does.
const longestValue = 1024

// Tracer implements [observe.Tracer].
type Tracer struct {
	to       *receiver
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	pulls    pulls
}

// New returns a Tracer that sends spans to where the environment says, by the variables of the
// OpenTelemetry specification. It returns nil if they name no receiver, and an error that is a
// [problem.Problem] if they cannot be used. version is sidemirror's.
func New(version string, getenv func(string) string) (*Tracer, error) {
	s, wrong := readSettings(getenv)
	if wrong != nil {
		return nil, wrong
	}
	if s == nil {
		return nil, nil
	}
	var faults []error
	otel.SetLogger(logr.Discard()) // it would print variables, which may have secrets
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { faults = append(faults, err) }))
	t := &Tracer{to: newReceiver(*s)}
	about, err := resource.New(context.Background(),
		resource.WithAttributes(semconv.ServiceName("sidemirror"), semconv.ServiceVersion(version)),
		resource.WithHost(), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		faults = append(faults, err)
	}
	limits := sdktrace.NewSpanLimits()
	if limits.AttributeValueLengthLimit < 0 {
		limits.AttributeValueLengthLimit = longestValue
	}
	// A full queue drops spans. It makes no request wait.
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithResource(about), sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithBatcher(otlptrace.NewUnstarted(t.to)))
	t.tracer = t.provider.Tracer("github.com/sidemirror/sidemirror", trace.WithInstrumentationVersion(version))
	t.pulls.begun = t.beginPull
	// The receiver remembers why spans cannot be sent.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	if len(faults) > 0 {
		_ = t.provider.Shutdown(context.Background())
		return nil, &problem.Problem{
			Code: "traces-misconfigured", Text: "no traces are sent: a variable OTEL_… cannot be used", Err: faults[0],
			Hint: "see docs/traces.md",
		}
	}
	return t, nil
}

// Problem returns why spans cannot be sent; nil if they can.
func (t *Tracer) Problem() *problem.Problem { return t.to.problem() }

// Close ends the spans of pulls and sends what is left, for as long as ctx lives.
func (t *Tracer) Close(ctx context.Context) {
	t.pulls.close()
	_ = t.provider.Shutdown(ctx) // the daemon ends; it can do nothing about what is lost
}

// Begin implements [observe.Tracer]. The request belongs to the caller's own trace, if it names one,
// and otherwise to that of the pull. A request for no image is followed only if the caller names one.
func (t *Tracer) Begin(r *observe.Request, traceparent string) observe.Span {
	ctx := parent(traceparent)
	var p *pull
	if !trace.SpanContextFromContext(ctx).IsValid() {
		if r.Repository == "" {
			return nil
		}
		p = t.pulls.begin(r)
		ctx = p.context
	}
	return t.beginRequest(ctx, p, r)
}

// parent returns a context with the span that a traceparent names, if it names one. See
// https://www.w3.org/TR/trace-context/.
func parent(traceparent string) context.Context {
	if traceparent == "" {
		return context.Background()
	}
	header := propagation.HeaderCarrier(http.Header{"Traceparent": {traceparent}})
	return propagation.TraceContext{}.Extract(context.Background(), header)
}
