package proxy

import (
	"net/http"
	"time"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

// worthReporting is how long a body must be to be reported while it is sent, in bytes. Shorter ones
// are out before a person could see them.
const worthReporting = 1 << 20

// downloading reports to the observer that a body of that size (-1: unknown) is being sent. It returns
// the function to call at its end.
func (p *Proxy) downloading(w *response, size int64) (end func()) {
	l := &w.line
	if size >= 0 && size < worthReporting || l.http.Method != http.MethodGet {
		return func() {}
	}
	r := observedRoom.Get().(*observe.Request)
	l.describe(r)
	d := &observe.Download{
		Key: r.PullKey(), Digest: r.Digest, Size: size, Source: r.Source, From: l.upstream,
		Started: time.Now(), Trusted: l.trusted,
	}
	*r = observe.Request{}
	observedRoom.Put(r)
	if d.Source == observe.Cache {
		d.From = ""
	}
	w.download = d
	p.observer.DownloadBegan(d)
	return func() {
		w.download = nil
		p.observer.DownloadEnded(d)
	}
}
