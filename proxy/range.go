package proxy

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// byteRange is the one range that a client asks for (RFC 9110, 14.2). The zero value
// is the whole.
type byteRange struct {
	some   bool  // it is a range and not the whole
	first  int64 // of the first byte; of a suffix: 0
	last   int64 // of the last byte; -1: to the end
	suffix int64 // if > 0, that many bytes from the end
}

// parseRange reads Range and If-Range. What is malformed, several ranges at once,
// and a condition that does not hold mean the whole, which a server may always send.
func parseRange(h http.Header, dgst digest.Digest) byteRange {
	values := h.Values("Range")
	if len(values) != 1 {
		return byteRange{}
	}
	if cond := h.Get("If-Range"); cond != "" && cond != strconv.Quote(dgst.String()) {
		return byteRange{}
	}
	spec, ok := strings.CutPrefix(values[0], "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok || !dash || strings.Contains(last, ",") {
		return byteRange{}
	}
	if first == "" {
		n, err := parseOffset(last)
		if err != nil || n == 0 {
			return byteRange{}
		}
		return byteRange{some: true, last: -1, suffix: n}
	}
	r := byteRange{some: true, last: -1}
	var err error
	if r.first, err = parseOffset(first); err != nil {
		return byteRange{}
	}
	if last != "" {
		if r.last, err = parseOffset(last); err != nil || r.last < r.first {
			return byteRange{}
		}
	}
	return r
}

// parseOffset reads digits only: ParseInt would take a sign too.
func parseOffset(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

// worthFilling reports whether a blob that nobody fetches is worth fetching whole
// for the range. A client that starts far in takes up a pull again, and one that
// wants a little may never want the rest; a long range from the first byte on is
// how containerd begins when it fetches a layer in pieces.
func (r byteRange) worthFilling() bool {
	const long = 1 << 20
	return !r.some || r.suffix == 0 && r.first == 0 && (r.last < 0 || r.last+1 >= long)
}

// header gives the value for Range, empty for the whole.
func (r byteRange) header() string {
	switch {
	case !r.some:
		return ""
	case r.suffix > 0:
		return fmt.Sprintf("bytes=-%d", r.suffix)
	case r.last < 0:
		return fmt.Sprintf("bytes=%d-", r.first)
	}
	return fmt.Sprintf("bytes=%d-%d", r.first, r.last)
}

// of gives the range's first byte and the one after its last in a whole of total
// bytes. ok is false where nothing of it is there.
func (r byteRange) of(total int64) (start, end int64, ok bool) {
	if r.suffix > 0 {
		return max(0, total-r.suffix), total, total > 0
	}
	end = total
	if r.some && r.last >= 0 {
		end = min(total, r.last+1)
	}
	return r.first, end, !r.some || r.first < total
}

// parseContentRange reads "bytes first-last/total"; total is -1 for "*".
func parseContentRange(s string) (start, end, total int64, err error) {
	bad := func() (int64, int64, int64, error) {
		return 0, 0, 0, fmt.Errorf("a Content-Range that makes no sense: %q", clip(s))
	}
	spec, ok := strings.CutPrefix(s, "bytes ")
	span, of, slash := strings.Cut(spec, "/")
	first, last, dash := strings.Cut(span, "-")
	if !ok || !slash || !dash {
		return bad()
	}
	if start, err = parseOffset(first); err != nil {
		return bad()
	}
	if end, err = parseOffset(last); err != nil || end < start {
		return bad()
	}
	end++
	if total = -1; of != "*" {
		if total, err = parseOffset(of); err != nil || total < end {
			return bad()
		}
	}
	return start, end, total, nil
}
