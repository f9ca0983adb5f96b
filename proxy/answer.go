package proxy

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/proxy/peer"
)

type unloggedKey struct{}

// Unlogged returns a context for a request that the access log shows only at the level debug,
// unless it fails: the daemon's own, by which it checks that it answers.
func Unlogged(ctx context.Context) context.Context {
	return context.WithValue(ctx, unloggedKey{}, true)
}

// answer is a ResponseWriter that knows what has been answered.
type answer struct {
	http.ResponseWriter
	started time.Time
	status  int
	bytes   int64
}

func newAnswer(w http.ResponseWriter) *answer {
	return &answer{ResponseWriter: w, started: time.Now()}
}

func (a *answer) begun() bool { return a.status != 0 }

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(b)
	a.bytes += int64(n)
	return n, err
}

// ReadFrom implements [io.ReaderFrom], by which net/http reaches sendfile.
func (a *answer) ReadFrom(r io.Reader) (int64, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := io.Copy(a.ResponseWriter, r)
	a.bytes += n
	return n, err
}

// Unwrap serves [http.ResponseController].
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// logAccess writes the one line that each request leaves.
func (p *Proxy) logAccess(a *answer, c *call, err error) {
	if a.status == 0 { // what net/http sends for a handler that says nothing
		a.status = http.StatusOK
	}
	level := logrus.InfoLevel
	if c.http.Context().Value(unloggedKey{}) != nil && err == nil {
		level = logrus.DebugLevel
	}
	if gone := c.http.Context().Err() != nil; !gone && (a.status >= 500 || err != nil && a.status < 400) {
		level = logrus.WarnLevel
	}
	if !p.log.IsLevelEnabled(level) {
		return
	}
	fields := logrus.Fields{
		"method":   c.http.Method,
		"status":   a.status,
		"bytes":    a.bytes,
		"duration": time.Since(a.started).Round(time.Microsecond),
	}
	set := func(name, value string) {
		if value != "" {
			fields[name] = value
		}
	}
	set("registry", c.Registry)
	set("repository", c.Repository)
	set("reference", c.Tag)
	set("digest", c.Digest.String())
	set("upstream", c.upstream)
	set("cache", c.cached)
	if c.Kind == 0 {
		set("path", clip(c.http.URL.EscapedPath()))
	} else {
		set("kind", c.Kind.String())
	}
	if caller, lookupErr := peer.FromContext(c.http.Context()); lookupErr == nil {
		fields["uid"] = caller.UID
	}
	if c.access != nil {
		set("credential", c.access.Credential.Generation)
	}
	if err != nil {
		fields["error"] = err.Error()
	}
	// WithFields would copy them all.
	(&logrus.Entry{Logger: p.log, Data: fields}).Log(level, "request")
}

// clip bounds what a stranger can put into a log line.
func clip(s string) string {
	const most = 200
	return s[:min(len(s), most)]
}
