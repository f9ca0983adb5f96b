package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/internal/logline"
	"github.com/sidemirror/sidemirror/proxy/observe"
	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/peer"
	"github.com/sidemirror/sidemirror/proxy/upstream"
	"github.com/sidemirror/sidemirror/proxy/visitor"
)

type unloggedKey struct{}

// Unlogged returns a context for a request that the log leaves out as long as it succeeds, and that
// does not count as one of an untrusted caller: the daemon's own, by which it checks that it responds.
func Unlogged(ctx context.Context) context.Context {
	return peer.Unrecorded(context.WithValue(ctx, unloggedKey{}, true))
}

// accessLine collects what the log says about one request.
type accessLine struct {
	http    *http.Request
	started time.Time
	status  int
	bytes   int64

	trusted    bool          // the caller is a trusted engine
	asked      oci.Request   // zero for a request that cannot be parsed
	digest     digest.Digest // of the manifest that a tag means
	credential string        // generation of the daemon's login
	upstream   string        // the upstream that responded
	cache      string        // how the cache served: hit, fill, miss, stale
	ahead      bool          // the blob was fetched before a client asked for it
	shared     bool          // the blob came from the shared store while the client waited

	visit *visitor.Visit // nil: the request did not come in at the site
	span  observe.Span   // nil if the request is not followed
}

// answeredBy records which upstream responded.
func (l *accessLine) answeredBy(u *upstream.Upstream) {
	if u != nil {
		l.upstream = u.Host()
	}
}

// AccessLog writes the line that each request leaves.
type AccessLog interface {
	// Write writes a line at level, for the time at. It does not retain the fields, which are in
	// the order of their names.
	Write(at time.Time, level logrus.Level, message string, fields []logline.Field)
}

// ended notifies the observer that a request is over, and writes its line in the log.
func (p *Proxy) ended(l *accessLine, err error) {
	if l.status == 0 { // what net/http sends for a handler that sends nothing
		l.status = http.StatusOK
	}
	took := time.Since(l.started)
	if l.http.Context().Value(unloggedKey{}) == nil {
		r := observedRoom.Get().(*observe.Request)
		l.describe(r)
		r.Duration, r.Failed = took, err != nil || l.status >= http.StatusBadRequest
		p.observer.RequestEnded(r)
		if l.span != nil {
			l.span.End(observe.Result{Request: r})
		}
		*r = observe.Request{}
		observedRoom.Put(r)
	}
	if p.accessLog != nil {
		p.logAccess(l, took, err)
	}
}

// follow begins the span of a request, if a tracer follows it. Only trusted callers may say to which
// trace of their own the request belongs.
func (p *Proxy) follow(l *accessLine) {
	if p.tracer == nil || l.http.Context().Value(unloggedKey{}) != nil {
		return
	}
	r := observedRoom.Get().(*observe.Request)
	l.describe(r)
	parent := ""
	if l.trusted {
		parent = l.http.Header.Get("Traceparent")
	}
	l.span = p.tracer.Begin(r, parent)
	*r = observe.Request{}
	observedRoom.Put(r)
}

// describe sets r to what is known of the request.
func (l *accessLine) describe(r *observe.Request) {
	*r = observe.Request{
		Registry: l.asked.Registry, Repository: l.asked.Repository, Tag: l.asked.Tag, Digest: string(l.asked.Digest + l.digest),
		Method: l.http.Method, Status: l.status, Cache: l.cache, Source: l.source(), Bytes: l.bytes,
		Started: l.started,
		Trusted: l.trusted, UID: -1, Remote: l.http.RemoteAddr, UserAgent: l.http.UserAgent(),
	}
	if l.asked.Kind != 0 {
		r.Kind = l.asked.Kind.String()
	}
	if caller, err := peer.FromContext(l.http.Context()); err == nil {
		r.UID = int64(caller.UID)
	}
	if l.visit != nil {
		r.Remote = netip.AddrPortFrom(l.visit.Client.Addr, 0).String()
	}
}

// source returns where the body came from.
func (l *accessLine) source() observe.Source {
	switch {
	case l.shared:
		return observe.SharedStore
	case l.ahead:
		return observe.Prefetch
	case l.cache == "hit" || l.cache == "stale":
		return observe.Cache
	case l.upstream != "" && l.status < http.StatusMultipleChoices:
		return observe.Upstream
	}
	return observe.Nowhere
}

var observedRoom = sync.Pool{New: func() any { return new(observe.Request) }}

// logAccess writes the one line that each request leaves.
func (p *Proxy) logAccess(l *accessLine, took time.Duration, err error) {
	ctx := l.http.Context()
	level := logrus.InfoLevel
	if errors.Is(err, errOutside) {
		level = logrus.DebugLevel // anyone on the internet can cause it
	}
	// The script of an open page asks again and again, with a query.
	again := l.http.URL.Path == "/" && l.http.URL.RawQuery != ""
	if err == nil && (again || ctx.Value(unloggedKey{}) != nil) {
		level = logrus.DebugLevel
	}
	if gone := ctx.Err() != nil; !gone && (l.status >= 500 || err != nil && l.status < 400) {
		level = logrus.WarnLevel
	}
	room := fieldsRoom.Get().(*[]logline.Field)
	defer fieldsRoom.Put(room)
	*room = l.fields((*room)[:0], took, err)
	p.accessLog.Write(l.started.Add(took), level, "request", *room)
	clear(*room) // what they refer to can be collected
}

var fieldsRoom = sync.Pool{New: func() any { return new([]logline.Field) }}

// fields appends the line's fields to all.
func (l *accessLine) fields(all []logline.Field, took time.Duration, err error) []logline.Field {
	text := func(name, value string) {
		if value != "" {
			all = append(all, logline.Text(name, value))
		}
	}
	all = append(all, logline.Int("bytes", l.bytes))
	text("cache", l.cache)
	if l.visit != nil {
		text("client", l.visit.Client.Addr.String())
	}
	text("credential", l.credential)
	text("digest", string(l.asked.Digest+l.digest)) // never both
	all = append(all, logline.Duration("duration", took.Round(time.Microsecond)))
	if err != nil {
		text("error", err.Error())
	}
	if l.asked.Kind != 0 {
		text("kind", l.asked.Kind.String())
	}
	text("method", clip(l.http.Method))
	if l.asked.Kind == 0 {
		text("path", clip(l.http.URL.EscapedPath()))
	}
	text("reference", l.asked.Tag)
	text("registry", l.asked.Registry)
	text("repository", l.asked.Repository)
	all = append(all, logline.Int("status", int64(l.status)))
	if caller, err := peer.FromContext(l.http.Context()); err == nil {
		all = append(all, logline.Int("uid", int64(caller.UID)))
	}
	text("upstream", l.upstream)
	if l.visit != nil {
		text("user", l.visit.User)
	}
	return all
}

// clip bounds what a caller can put into a log line.
func clip(s string) string {
	const most = 200
	return s[:min(len(s), most)]
}
