package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

// followed is roundTrip with a span, if the work that req belongs to is followed. The span ends with
// the body of the response. No header about it goes to the server: a registry must not learn how
// requests of this host belong together.
func (c connections) followed(req *http.Request) (*http.Response, error) {
	if observe.SpanOf(req.Context()) == nil {
		return c.roundTrip(req)
	}
	step := observe.Step{Kind: observe.StepExchange, Method: req.Method, Scheme: req.URL.Scheme, Host: req.URL.Host, Redirected: c.redirected}
	if !c.redirected {
		step.Path = req.URL.Path
	}
	ctx, span := observe.Begin(req.Context(), step)
	made := &followedConnection{span: span, host: req.URL.Host}
	resp, err := c.roundTrip(req.WithContext(httptrace.WithClientTrace(ctx, made.hooks())))
	if err != nil {
		span.End(failedResult(req.Context(), err))
		return nil, err
	}
	resp.Body = &followedBody{ReadCloser: resp.Body, span: span, status: resp.StatusCode}
	return resp, nil
}

// failedResult returns the result of work that ended with err.
func failedResult(ctx context.Context, err error) observe.Result {
	if errors.Is(ctx.Err(), context.Canceled) {
		return observe.Result{Failed: true, Reason: "canceled"}
	}
	return observe.Result{Failed: true, Reason: reason(err)}
}

// followedConnection makes spans of what it takes to get a connection. A connection may be made
// although the request gets another one, which has become free.
type followedConnection struct {
	span observe.Span
	host string

	mu      sync.Mutex
	lookup  observe.Span
	shake   observe.Span
	connect map[string]observe.Span // by address: several may be tried at once
}

func (c *followedConnection) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart: func(i httptrace.DNSStartInfo) {
			c.begin(&c.lookup, observe.Step{Kind: observe.StepLookup, Host: i.Host})
		},
		DNSDone: func(i httptrace.DNSDoneInfo) { c.end(&c.lookup, i.Err) },
		ConnectStart: func(_, address string) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.connect == nil {
				c.connect = map[string]observe.Span{}
			}
			c.connect[address] = c.span.Begin(observe.Step{Kind: observe.StepConnect, Host: address})
		},
		ConnectDone: func(_, address string, err error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			endStep(c.connect[address], err)
			delete(c.connect, address)
		},
		TLSHandshakeStart: func() { c.begin(&c.shake, observe.Step{Kind: observe.StepHandshake, Host: c.host}) },
		TLSHandshakeDone:  func(_ tls.ConnectionState, err error) { c.end(&c.shake, err) },
	}
}

func (c *followedConnection) begin(of *observe.Span, s observe.Step) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*of = c.span.Begin(s)
}

func (c *followedConnection) end(of *observe.Span, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	endStep(*of, err)
	*of = nil
}

// endStep ends the span of a step towards a connection, if it was begun.
func endStep(s observe.Span, err error) {
	if s == nil {
		return
	}
	var r observe.Result
	if err != nil {
		r = observe.Result{Failed: true, Reason: reason(err)}
	}
	s.End(r)
}

// followedBody counts the bytes of a response's body for its span.
type followedBody struct {
	io.ReadCloser
	span   observe.Span
	status int
	bytes  atomic.Int64
	broken atomic.Bool
}

// Read implements [io.Reader].
func (b *followedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		b.broken.Store(true)
	}
	return n, err
}

// Close implements [io.Closer].
func (b *followedBody) Close() error {
	err := b.ReadCloser.Close()
	r := observe.Result{Status: b.status, Bytes: b.bytes.Load(), Failed: b.status >= http.StatusBadRequest}
	if b.broken.Load() {
		r.Failed, r.Reason = true, "the body broke off"
	}
	b.span.End(r)
	return err
}
