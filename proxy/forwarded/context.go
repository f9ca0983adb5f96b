package forwarded

import (
	"context"
	"net/http"
)

type clientKey struct{}

// WithClient returns a context for the request of a client.
func WithClient(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// Scheme returns the scheme by which the client of r reached the first trusted proxy or this process.
func Scheme(r *http.Request) string {
	c, known := r.Context().Value(clientKey{}).(Client)
	switch {
	case known:
		return c.Scheme
	case r.TLS != nil:
		return "https"
	}
	return "http"
}
