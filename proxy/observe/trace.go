package observe

import "context"

// Tracer follows the work that is done for requests, so that a person can see where the time of a
// pull goes. Without one, nothing is followed, and following costs nothing.
type Tracer interface {
	// Begin begins the span of a client's request, of which Registry, Kind, Repository, Tag, Digest,
	// Method, Started and the caller are known. traceparent is the header of that name, "" for none.
	// It returns nil for a request that is not followed. It must not retain the request.
	Begin(r *Request, traceparent string) Span
}

// Span is a piece of work, with a beginning and an end. Its methods may be called by several
// goroutines at a time. Begin may be called after End, for work that outlives its reason.
type Span interface {
	// Begin begins a step of the work.
	Begin(s Step) Span
	// End ends the work. Only the first call counts.
	End(r Result)
}

// Step is work that sidemirror does for a request.
type Step struct {
	Kind   StepKind
	Method string // of an exchange
	Scheme string // likewise
	Host   string // that is asked, looked up or connected to, with a port if it is not the scheme's
	// Path of an exchange; "" if it may be a secret, as it may be where an upstream redirects. A
	// query is never part of it.
	Path       string
	Redirected bool   // the exchange is with where the upstream redirects
	Digest     string // of the layer that is fetched ahead
}

// StepKind is a kind of a step.
type StepKind uint8

// The kinds of steps.
const (
	StepExchange   StepKind = iota // a request to an upstream or a token server, and its response with the body
	StepToken                      // getting a token
	StepFetchAhead                 // fetching a layer before a client asks for it
	StepLookup                     // asking name servers
	StepConnect                    // connecting by TCP
	StepHandshake                  // the TLS handshake
)

// Result is how a piece of work ended.
type Result struct {
	Request *Request // of the span of a client's request: all that is known of it
	Status  int      // of an exchange; 0 if there was no response
	Bytes   int64    // of the body that an exchange brought
	Failed  bool
	Reason  string // why, in a word or two without any secret; may be empty
}

type spanKey struct{}

// WithSpan returns a context for work that belongs to s. If s is nil, it returns ctx.
func WithSpan(ctx context.Context, s Span) context.Context {
	if s == nil {
		return ctx
	}
	return context.WithValue(ctx, spanKey{}, s)
}

// SpanOf returns the span that work with ctx belongs to; nil if it is not followed.
func SpanOf(ctx context.Context) Span {
	s, _ := ctx.Value(spanKey{}).(Span)
	return s
}

// Begin begins a step of the span that work with ctx belongs to. It returns a context for that step,
// and the step's span. If the work is not followed, it returns ctx and nil.
func Begin(ctx context.Context, s Step) (context.Context, Span) {
	of := SpanOf(ctx)
	if of == nil {
		return ctx, nil
	}
	step := of.Begin(s)
	return WithSpan(ctx, step), step
}
