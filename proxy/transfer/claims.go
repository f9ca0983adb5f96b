package transfer

import "github.com/sidemirror/sidemirror/internal/extent"

// claims are what is present of a blob, and what connections will bring.
type claims struct {
	present *extent.Set
	coming  extent.Set
}

// claimed returns the transfer's claims. t.mu is held, as long as they are used.
func (t *transfer) claimed() *claims {
	c := &claims{present: &t.have}
	for _, conn := range t.conns {
		if !conn.stalled {
			c.coming.Add(extent.Extent{Start: conn.at, End: conn.end})
		}
	}
	return c
}

// missing returns the first bytes within e that are neither present nor coming, up to the next that
// are. ok is false if there are none.
func (c *claims) missing(e extent.Extent) (gap extent.Extent, ok bool) {
	for at := e.Start; at < e.End; {
		rest := extent.Extent{Start: at, End: e.End}
		absent, ok := c.present.Missing(rest)
		unclaimed, ok2 := c.coming.Missing(rest)
		if !ok || !ok2 {
			break
		}
		if absent.Start == at && unclaimed.Start == at {
			return extent.Extent{Start: at, End: min(absent.End, unclaimed.End)}, true
		}
		at = max(absent.Start, unclaimed.Start)
	}
	return extent.Extent{}, false
}
