package transfer

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
)

const otherBlob = "another blob of the same size, and another ETag, to a range"

// behaviours are upstreams whose plain answer is right: an engine that asks them directly, by one
// connection, gets the blob. Through sidemirror it must get it too.
var behaviours = map[string]answer{
	"well-behaved": right,
	"no ranges":    func(_ *upstream, c *call) { c.whole() },
	"a Content-Range of another place": func(_ *upstream, c *call) {
		c.header(func(h http.Header) {
			if c.ranged {
				h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", c.first+1, c.last+1, len(c.blob.Bytes)+1))
			}
		})
		c.body(c.wanted())
	},
	"an overlapping range": func(_ *upstream, c *call) {
		if c.ranged {
			c.first = max(0, c.first-1000)
		}
		c.header(nil)
		c.body(c.wanted())
	},
	"the first bytes whatever is asked for": func(_ *upstream, c *call) {
		if c.ranged {
			c.first, c.last = 0, c.last-c.first
		}
		c.header(nil)
		c.body(c.wanted())
	},
	"a Content-Range that is none": func(_ *upstream, c *call) {
		c.header(func(h http.Header) {
			if c.ranged {
				h.Set("Content-Range", "bytes of some kind")
			}
		})
		c.body(c.wanted())
	},
	"no Content-Range": func(_ *upstream, c *call) {
		c.header(func(h http.Header) { h.Del("Content-Range") })
		c.body(c.wanted())
	},
	"multipart to one range": func(_ *upstream, c *call) {
		c.header(func(h http.Header) {
			if c.ranged {
				h.Set("Content-Type", "multipart/byteranges; boundary=x")
				h.Del("Content-Range")
			}
		})
		c.body(c.wanted())
	},
	otherBlob: func(_ *upstream, c *call) {
		if c.ranged {
			c.blob = other
		}
		c.header(nil)
		c.body(c.wanted())
	},
	"an ETag that changes": func(_ *upstream, c *call) {
		c.header(func(h http.Header) { h.Set("ETag", strconv.Quote(strconv.Itoa(c.number))) })
		c.body(c.wanted())
	},
	"a total that changes": func(_ *upstream, c *call) {
		c.header(func(h http.Header) {
			if c.ranged {
				h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", c.first, c.last, len(c.blob.Bytes)+c.number))
			}
		})
		c.body(c.wanted())
	},
	"an unknown total": func(_ *upstream, c *call) {
		c.header(func(h http.Header) {
			if c.ranged {
				h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/*", c.first, c.last))
			}
		})
		c.body(c.wanted())
	},
	"fewer bytes than asked for": func(_ *upstream, c *call) {
		if c.ranged {
			c.last = min(c.last, c.first+3<<20)
		}
		c.header(nil)
		c.body(c.wanted())
	},
	"429 to the third connection":                  tooMany(3, ""),
	"429 with Retry-After to the third connection": tooMany(3, "1"),
	"429 to the second connection":                 tooMany(2, ""),
	"503 to the second connection":                 refused(2, http.StatusServiceUnavailable),
	"403 to the second connection":                 refused(2, http.StatusForbidden),
	"404 to the second connection":                 refused(2, http.StatusNotFound),
	"416 to the second connection":                 refused(2, http.StatusRequestedRangeNotSatisfiable),
	"the second connection is cut at once": func(u *upstream, c *call) {
		if c.at >= 2 {
			c.cut()
			return
		}
		right(u, c)
	},
	"every connection is cut after three megabytes": func(_ *upstream, c *call) {
		c.header(nil)
		part := c.wanted()
		if len(part) > 3<<20 {
			c.body(part[:3<<20])
			c.cut()
			return
		}
		c.body(part)
	},
	"cut, and 429 with Retry-After to those that resume": func(u *upstream, c *call) {
		switch {
		case c.number == 1:
			c.header(nil)
			part := c.wanted()
			c.body(part[:min(3<<20, len(part)-1)])
			c.cut()
		case c.number < 4:
			tooMany(0, "1")(u, c)
		default:
			right(u, c)
		}
	},
	"more bytes than the length says": func(_ *upstream, c *call) {
		c.header(func(h http.Header) { h.Del("Content-Length"); h.Set("Connection", "close") })
		if c.body(c.wanted()) && c.ranged {
			c.body(other.Bytes[:1000])
		}
	},
	"no length": func(_ *upstream, c *call) {
		c.header(func(h http.Header) { h.Del("Content-Length") })
		c.body(c.wanted())
	},
}

func tooMany(connection int, retryAfter string) answer {
	return func(u *upstream, c *call) {
		if c.at < connection {
			right(u, c)
			return
		}
		if retryAfter != "" {
			c.w.Header().Set("Retry-After", retryAfter)
		}
		c.w.WriteHeader(http.StatusTooManyRequests)
	}
}

func refused(connection, status int) answer {
	return func(u *upstream, c *call) {
		if c.at < connection {
			right(u, c)
			return
		}
		c.w.WriteHeader(status)
	}
}

func TestAPullSucceedsWhateverAnUpstreamDoesWithRanges(t *testing.T) {
	for what, by := range behaviours {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, slow, by, big)
			r := start(t, nil, u)
			r.whole("the first client", big)
			r.keepsNothingWrong()
			r.whole("the next client", big)
		})
	}
}

func TestAPullWithoutACacheSucceedsWhateverAnUpstreamDoesWithRanges(t *testing.T) {
	for what, by := range behaviours {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, 0, by, big)
			r := start(t, func(h *harness.Options) { h.Cache = "none" }, u)
			r.whole("a client", big)
			if _, most := u.counts(); most > 1 {
				t.Errorf("%d connections at once without a cache", most)
			}
		})
	}
}

// A range that the upstream answers wrongly may fail, and must not be wrong. What does not show in
// the header an engine sees at the digest, as it does without sidemirror.
func TestPiecesAreNeverWrongWhateverAnUpstreamDoesWithRanges(t *testing.T) {
	for what, by := range behaviours {
		if what == otherBlob {
			continue
		}
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, 0, by, big)
			r := start(t, nil, u)
			broken := r.pieces(big, 5)
			if what == "well-behaved" && broken > 0 {
				t.Errorf("%d of 5 pieces did not come", broken)
			}
			r.neverWrong("the whole", r.get(big), big)
			r.keepsNothingWrong()
		})
	}
}

// The bytes are wrong and nothing in the header shows it. Only the digest does.
func TestBytesThatAreWrongInEveryRangeReachNoClientAsAWhole(t *testing.T) {
	for what, lie := range map[string]func(c *call) []byte{
		"of another blob":    func(c *call) []byte { return other.Bytes[c.first : c.last+1] },
		"of another place":   func(c *call) []byte { return c.blob.Bytes[len(c.blob.Bytes)-1-c.last : len(c.blob.Bytes)-c.first] },
		"with one wrong bit": func(c *call) []byte { b := bytes.Clone(c.wanted()); b[len(b)/2] ^= 1; return b },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			liar := func(_ *upstream, c *call) {
				c.header(nil)
				if c.ranged {
					c.body(lie(c))
					return
				}
				c.body(c.wanted())
			}
			u := newUpstream(t, slow, liar, big)
			r := start(t, nil, u)
			for n := range 3 {
				r.neverWrong(fmt.Sprint("client ", n), r.get(big), big)
				r.keepsNothingWrong()
			}
			// Another upstream has it: the next pull succeeds.
			r = start(t, nil, u, newUpstream(t, slow, right, big))
			r.neverWrong("the first client", r.get(big), big)
			r.whole("the next client", big)
			r.keepsNothingWrong()
		})
	}
}
