package proxy

import (
	"context"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/proxy/oci"
	"github.com/sidemirror/sidemirror/proxy/peer"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

type unloggedKey struct{}

// Unlogged returns a context for a request that the log leaves out as long as it succeeds: the
// daemon's own, by which it checks that it responds.
func Unlogged(ctx context.Context) context.Context {
	return context.WithValue(ctx, unloggedKey{}, true)
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
}

// answeredBy records which upstream responded.
func (l *accessLine) answeredBy(u *upstream.Upstream) {
	if u != nil {
		l.upstream = u.Host()
	}
}

// logAccess writes the one line that each request leaves.
func (p *Proxy) logAccess(l *accessLine, err error) {
	if l.status == 0 { // what net/http sends for a handler that sends nothing
		l.status = http.StatusOK
	}
	level := logrus.InfoLevel
	if l.http.Context().Value(unloggedKey{}) != nil && err == nil {
		level = logrus.DebugLevel
	}
	if gone := l.http.Context().Err() != nil; !gone && (l.status >= 500 || err != nil && l.status < 400) {
		level = logrus.WarnLevel
	}
	if !p.log.IsLevelEnabled(level) {
		return
	}
	fields := l.fields()
	if err != nil {
		fields["error"] = err.Error()
	}
	// WithFields would copy them all.
	(&logrus.Entry{Logger: p.log, Data: fields}).Log(level, "request")
}

func (l *accessLine) fields() logrus.Fields {
	fields := logrus.Fields{
		"method":   l.http.Method,
		"status":   l.status,
		"bytes":    l.bytes,
		"duration": time.Since(l.started).Round(time.Microsecond),
	}
	set := func(name, value string) {
		if value != "" {
			fields[name] = value
		}
	}
	set("registry", l.asked.Registry)
	set("repository", l.asked.Repository)
	set("reference", l.asked.Tag)
	set("digest", string(l.asked.Digest+l.digest)) // never both
	set("upstream", l.upstream)
	set("cache", l.cache)
	set("credential", l.credential)
	if l.asked.Kind == 0 {
		set("path", clip(l.http.URL.EscapedPath()))
	} else {
		set("kind", l.asked.Kind.String())
	}
	if caller, err := peer.FromContext(l.http.Context()); err == nil {
		fields["uid"] = caller.UID
	}
	return fields
}

// clip bounds what a caller can put into a log line.
func clip(s string) string {
	const most = 200
	return s[:min(len(s), most)]
}
