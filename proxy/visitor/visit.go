package visitor

import (
	"context"
	"net/http"
	"net/netip"

	"golang.org/x/time/rate"

	"github.com/sidemirror/sidemirror/internal/secret"
	"github.com/sidemirror/sidemirror/proxy/forwarded"
)

// Login is the name and the password that a visitor sends.
type Login struct {
	Name     string
	Password secret.Secret
}

// Visit is one request of a visitor.
type Visit struct {
	// Client is the visitor as far as its address and its URL are concerned.
	Client forwarded.Client

	// User is the name that the visitor has logged in with; "" for none.
	User string

	from    netip.Prefix
	site    *Site // nil: not admitted
	address *address
	bytes   *rate.Limiter
	fills   chan struct{}
}

// Leave ends the visit, once the response is out. It may be called for a visit that was refused, and
// for nil.
func (v *Visit) Leave() {
	if v != nil && v.site != nil {
		v.site.leave(v.address)
		v.site = nil
	}
}

// Fill waits until the visitor may cause a blob to be fetched from a registry, and returns what ends
// that. The error is an [*oci.Error], or that of ctx. For nil there is no limit.
func (v *Visit) Fill(ctx context.Context) (done func(), err error) {
	if v == nil || v.fills == nil {
		return func() {}, nil
	}
	if err := take(ctx, v.fills); err != nil {
		return nil, err
	}
	return func() { <-v.fills }, nil
}

// Writer returns a ResponseWriter for the visitor, which writes no faster to w than it may.
func (v *Visit) Writer(ctx context.Context, w http.ResponseWriter) http.ResponseWriter {
	if v.bytes == nil {
		return w
	}
	return &throttled{w, ctx, v.bytes}
}

// Network returns the addresses that count as the visitor's own.
func (v *Visit) Network() netip.Prefix { return v.from }

type visitKey struct{}

// With returns a context for what is done for a visit.
func With(ctx context.Context, v *Visit) context.Context {
	return context.WithValue(ctx, visitKey{}, v)
}

// From returns the visit that something is done for; nil if it is none.
func From(ctx context.Context) *Visit {
	v, _ := ctx.Value(visitKey{}).(*Visit)
	return v
}

// throttled is a ResponseWriter that keeps to a rate.
type throttled struct {
	http.ResponseWriter
	ctx   context.Context
	bytes *rate.Limiter
}

// Write implements [io.Writer].
func (t *throttled) Write(b []byte) (written int, err error) {
	for len(b) > 0 {
		n := min(len(b), portion)
		if err := t.bytes.WaitN(t.ctx, n); err != nil {
			return written, err
		}
		n, err := t.ResponseWriter.Write(b[:n])
		written += n
		if err != nil {
			return written, err
		}
		b = b[n:]
	}
	return written, nil
}

// Unwrap serves [http.ResponseController].
func (t *throttled) Unwrap() http.ResponseWriter { return t.ResponseWriter }
