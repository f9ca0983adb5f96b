package observe

import (
	"sync/atomic"
	"time"
)

// Download is the body of a blob on its way to a client.
type Download struct {
	Key     PullKey // of the pull that it belongs to
	Digest  string
	Size    int64  // of the body, in bytes; -1 if it is unknown
	Source  Source // of the body
	From    string // the upstream's host; "" if the body is from the cache
	Started time.Time
	Trusted bool // the caller is a trusted engine

	sent atomic.Int64
}

// Add records that n more bytes were sent.
func (d *Download) Add(n int64) { d.sent.Add(n) }

// Sent returns how many bytes were sent until now.
func (d *Download) Sent() int64 { return d.sent.Load() }
