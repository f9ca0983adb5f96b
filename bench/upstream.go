package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// upstream is a registry that serves images without asking who wants them, and
// counts. Blobs go out at no more than rate bytes/s each, as a CDN's connection does.
type upstream struct {
	address string
	server  *http.Server
	done    chan struct{}

	rate     atomic.Int64 // 0: as fast as it goes
	requests atomic.Int64 // all, HEAD and /v2/ too

	mu        sync.Mutex
	blobs     map[string]*blob
	manifests map[string]*blob // by digest and by tag
	transfers map[string]int   // GETs of a blob, by digest
}

// newUpstream listens on a free port.
func newUpstream() (*upstream, error) {
	//nolint:noctx // listening on loopback does not block
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &upstream{
		address:   l.Addr().String(),
		done:      make(chan struct{}),
		blobs:     make(map[string]*blob),
		manifests: make(map[string]*blob),
		transfers: make(map[string]int),
	}
	u.server = &http.Server{Handler: u, ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(u.done)
		_ = u.server.Serve(l) // ErrServerClosed
	}()
	return u, nil
}

func (u *upstream) close() {
	_ = u.server.Close()
	<-u.done
}

func (u *upstream) add(images ...*image) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, i := range images {
		u.manifests[i.tag] = i.manifest
		u.manifests[i.manifest.digest] = i.manifest
		u.blobs[i.config.digest] = i.config
		for _, b := range i.layers {
			u.blobs[b.digest] = b
		}
	}
}

// transfersOf is how often the blob was fetched.
func (u *upstream) transfersOf(b *blob) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.transfers[b.digest]
}

// ServeHTTP implements [http.Handler].
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.requests.Add(1)
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if r.URL.Path == "/v2/" {
		w.WriteHeader(http.StatusOK)
		return
	}
	what, mediaType, found := u.find(r)
	if !found {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Docker-Content-Digest", what.digest)
	w.Header().Set("Etag", strconv.Quote(what.digest))
	w.Header().Set("Content-Type", mediaType)
	content := paced{blobReader: what.reader(), rate: u.rate.Load(), start: time.Now(), ctx: r.Context()}
	http.ServeContent(w, r, "", time.Time{}, &content)
}

// find gives what r asks for, and its type.
func (u *upstream) find(r *http.Request) (what *blob, mediaType string, found bool) {
	rest, _ := strings.CutPrefix(r.URL.Path, "/v2/"+repository+"/")
	kind, name, _ := strings.Cut(rest, "/")
	u.mu.Lock()
	defer u.mu.Unlock()
	switch kind {
	case "manifests":
		what, found = u.manifests[name]
		return what, manifestType, found
	case "blobs":
		what, found = u.blobs[name]
		if found && r.Method == http.MethodGet {
			u.transfers[name]++
		}
		return what, "application/octet-stream", found
	}
	return nil, "", false
}

// paced reads no faster than rate.
type paced struct {
	*blobReader
	rate  int64
	start time.Time
	sent  int64
	ctx   context.Context
}

// Read implements [io.Reader].
func (p *paced) Read(to []byte) (int, error) {
	n, err := p.blobReader.Read(to)
	p.sent += int64(n)
	if p.rate == 0 {
		return n, err
	}
	due := p.start.Add(time.Duration(float64(p.sent) / float64(p.rate) * float64(time.Second)))
	// A sleep of less is not worth its wake-up, nor as short as it was asked to be.
	if early := time.Until(due); early > time.Millisecond {
		select {
		case <-p.ctx.Done():
			return n, errors.Join(err, p.ctx.Err())
		case <-time.After(early):
		}
	}
	return n, err
}
