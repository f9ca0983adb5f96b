package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"
)

// BodyPause is how long a body may pause before its Read fails. containerd cancels a request after
// that time without a byte, and other engines wait longer.
const BodyPause = 5 * time.Minute

// Unlimited is a Request.HeaderTimeout: the header may take as long as the context lives.
const Unlimited time.Duration = -1

// headerOfSeveral is how long a response header may take while another upstream has not been
// asked yet, and the engine can fall back to the registry.
const headerOfSeveral = 10 * time.Second

type headersKey struct{}

// awaitingHeader returns a context for requests whose response header may take so long.
func awaitingHeader(ctx context.Context, limit time.Duration) context.Context {
	if limit == 0 {
		return ctx
	}
	return context.WithValue(ctx, headersKey{}, limit)
}

// lateError says that a connection was made and no response header came in time.
type lateError struct{}

func (lateError) Error() string   { return "timeout awaiting response headers" }
func (lateError) Timeout() bool   { return true }
func (lateError) Temporary() bool { return true }

// awaitHeader sends req. It gives up if no response header comes within limit after the connection
// was made; 0 and less mean that there is no limit.
func awaitHeader(t http.RoundTripper, req *http.Request, limit time.Duration) (*http.Response, error) {
	if limit <= 0 {
		return t.RoundTrip(req)
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(limit, func() { cancel(lateError{}) })
	timer.Stop()
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { timer.Reset(limit) }}
	resp, err := t.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	timer.Stop()
	if late, ok := errors.AsType[lateError](context.Cause(ctx)); ok {
		if err == nil {
			_ = resp.Body.Close()
		}
		return nil, late
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &closingBody{ReadCloser: resp.Body, then: func() { cancel(nil) }}
	return resp, nil
}

// closingBody calls then when it is closed.
type closingBody struct {
	io.ReadCloser
	then func()
	once sync.Once
}

// Close implements [io.Closer].
func (b *closingBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(b.then)
	return err
}

// pausingBody is the body of a response. Its Read fails if no byte comes for longest, so that
// another upstream can be asked.
type pausingBody struct {
	closingBody
	longest time.Duration
	timer   *time.Timer
}

// newPausingBody returns body with a limit to its pauses. It calls cancel when it is closed, or to
// end a pause.
func newPausingBody(body io.ReadCloser, longest time.Duration, cancel context.CancelFunc) io.ReadCloser {
	timer := time.AfterFunc(longest, cancel)
	timer.Stop()
	return &pausingBody{closingBody{ReadCloser: body, then: func() { timer.Stop(); cancel() }}, longest, timer}
}

// Read implements [io.Reader].
func (b *pausingBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.longest)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	return n, err
}
