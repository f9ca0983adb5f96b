package prefetch

import "github.com/opencontainers/go-digest"

// maxCounted bounds the layers that are counted one by one.
const maxCounted = 4096

// Stats are counters since the start.
type Stats struct {
	Bytes  int64 // that were fetched ahead
	Unused int64 // of those, of layers that no client has asked for
}

// Stats returns the counters.
func (p *Prefetcher) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts.total
}

// counts counts the bytes of layers that were fetched ahead.
type counts struct {
	total  Stats
	layers map[digest.Digest]*counted
}

type counted struct {
	bytes int64
	asked bool // by a client
}

func (c *counts) layer(d digest.Digest) *counted {
	if l := c.layers[d]; l != nil {
		return l
	}
	if c.layers == nil {
		c.layers = map[digest.Digest]*counted{}
	}
	for old := range c.layers {
		if len(c.layers) < maxCounted {
			break
		}
		delete(c.layers, old)
	}
	l := &counted{}
	c.layers[d] = l
	return l
}

// add counts n bytes of a layer that no client has asked for yet.
func (c *counts) add(d digest.Digest, n int64) {
	l := c.layer(d)
	l.bytes += n
	c.total.Bytes += n
	if !l.asked {
		c.total.Unused += n
	}
}

// forget begins to count a layer anew. What no client has asked for stays unused.
func (c *counts) forget(d digest.Digest) { delete(c.layers, d) }

// use records that a client asked for a blob, and reports whether it is the first to ask for bytes
// that were fetched ahead.
func (c *counts) use(d digest.Digest) bool {
	l := c.layers[d]
	if l == nil || l.asked {
		return false
	}
	l.asked = true
	c.total.Unused -= l.bytes
	return l.bytes > 0
}

// of returns how many bytes of a layer were fetched ahead, and how many of them are unused.
func (c *counts) of(d digest.Digest) (bytes, unused int64) {
	l := c.layers[d]
	if l == nil {
		return 0, 0
	}
	if l.asked {
		return l.bytes, 0
	}
	return l.bytes, l.bytes
}
