package daemon

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/sidemirror/sidemirror/daemon/tracing"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// flushTime is for how long the daemon, when it ends, sends the spans that are left.
const flushTime = 2 * time.Second

// traces are where the daemon sends its traces, and why it does not.
type traces struct {
	tracer *tracing.Tracer // nil: nowhere
	wrong  *problem.Problem
}

// trace makes the daemon send traces if its environment says where. It returns the function that ends
// that. An environment that cannot be used is a problem, and ends nothing.
func (d *daemon) trace(version string) (end func()) {
	t, err := tracing.New(version, os.Getenv)
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		d.traces.wrong = p
	}
	if t == nil {
		return func() {}
	}
	d.traces.tracer = t
	d.caches.tracer = t
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		t.Close(ctx)
	}
}

// problem returns why no traces are sent or received; nil if nothing is wrong.
func (t traces) problem() *problem.Problem {
	if t.tracer == nil {
		return t.wrong
	}
	return t.tracer.Problem()
}
