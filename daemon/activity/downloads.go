package activity

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/proxy/observe"
)

const (
	maxDownloads = 256

	// maxUntrustedDownloads leaves room for those of engines.
	maxUntrustedDownloads = maxDownloads / 4
)

// Download is a blob on its way to a client.
type Download struct {
	Image   string    `json:"image"` // of the pull that it belongs to: "docker.io/library/alpine:3.20"
	Engine  string    `json:"engine"`
	Trusted bool      `json:"trusted"` // the caller is a trusted engine
	Digest  string    `json:"digest"`
	Started time.Time `json:"started"`
	Source  string    `json:"source"`         // "cache", "upstream" or "prefetch", as in [Bytes]
	From    string    `json:"from,omitempty"` // the upstream's host
	Size    *int64    `json:"size,omitempty"` // in bytes; nil if unknown
	Sent    int64     `json:"sent"`           // in bytes, until now
}

// downloads are those under way.
type downloads struct {
	mu        sync.Mutex
	all       map[*observe.Download]struct{}
	untrusted int
}

func (s *downloads) add(d *observe.Download) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= maxDownloads || !d.Trusted && s.untrusted >= maxUntrustedDownloads {
		return
	}
	if s.all == nil {
		s.all = map[*observe.Download]struct{}{}
	}
	s.all[d] = struct{}{}
	if !d.Trusted {
		s.untrusted++
	}
}

func (s *downloads) remove(d *observe.Download) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.all[d]; !there {
		return
	}
	delete(s.all, d)
	if !d.Trusted {
		s.untrusted--
	}
}

// list returns those under way, the one that began first first. image returns the name of the image
// that a pull is for.
func (s *downloads) list(image func(observe.PullKey) string) []Download {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Download, 0, len(s.all))
	for d := range s.all {
		made := Download{
			Image: image(d.Key), Engine: d.Key.Engine, Trusted: d.Trusted, Digest: d.Digest,
			Started: d.Started.UTC(), Source: d.Source.String(), From: d.From, Sent: d.Sent(),
		}
		if d.Size >= 0 {
			made.Size = new(d.Size)
		}
		list = append(list, made)
	}
	slices.SortFunc(list, func(a, b Download) int {
		return cmp.Or(a.Started.Compare(b.Started), strings.Compare(a.Digest, b.Digest))
	})
	return list
}

// imageOf returns the name of the image that the latest pull of a key is for.
func (s *pulls) imageOf(key observe.PullKey) string {
	if p := s.last[key]; p != nil {
		return p.image()
	}
	return (&pull{key: key}).image()
}
