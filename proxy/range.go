package proxy

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// byteRange is the range that a client asks for (RFC 9110, 14.2). The zero value is the
// whole. No sum of its numbers overflows.
type byteRange struct {
	some   bool  // it is a range and not the whole
	first  int64 // of the first byte; 0 for a suffix
	last   int64 // of the last byte; -1: to the end
	suffix int64 // if > 0, that many bytes from the end
}

// parseRange reads Range and If-Range. A malformed range, several ranges at once, and a
// condition that does not hold mean the whole, which a server may always send.
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
	r := byteRange{some: true, last: -1}
	if first == "" {
		if r.suffix, ok = parseOffset(last); !ok || r.suffix == 0 {
			return byteRange{}
		}
		return r
	}
	if r.first, ok = parseOffset(first); !ok {
		return byteRange{}
	}
	if last != "" {
		if r.last, ok = parseOffset(last); !ok || r.last < r.first {
			return byteRange{}
		}
	}
	return r
}

// maxOffset is the largest offset of a byte: one more must still be an int64.
const maxOffset = math.MaxInt64 - 1

// parseOffset reads digits only: ParseInt would accept a sign too. A number that is larger
// than maxOffset is beyond the end of every blob, as maxOffset is.
func parseOffset(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	if errors.Is(err, strconv.ErrRange) {
		return maxOffset, true
	}
	return min(int64(n), maxOffset), err == nil
}

// worthFilling reports whether a blob that no request fetches is worth fetching whole for
// the range. A client that starts far in resumes a pull, and one that wants a little may
// never want the rest. A long range from the first byte on is how containerd begins when it
// fetches a layer in pieces.
func (r byteRange) worthFilling() bool {
	const long = 1 << 20
	return !r.some || r.suffix == 0 && r.first == 0 && (r.last < 0 || r.last+1 >= long)
}

// header returns the value for Range, empty for the whole.
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

// of returns the first byte of the range and the one after its last in a whole of total
// bytes. ok is false if the whole has no byte of the range.
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
	spec, ok := strings.CutPrefix(s, "bytes ")
	span, of, slash := strings.Cut(spec, "/")
	first, last, dash := strings.Cut(span, "-")
	start, okStart := parseOffset(first)
	end, okEnd := parseOffset(last)
	total, okTotal := parseOffset(of)
	if of == "*" {
		total, okTotal = -1, true
	}
	if !ok || !slash || !dash || !okStart || !okEnd || !okTotal || end < start || total >= 0 && total <= end {
		return 0, 0, 0, fmt.Errorf("a Content-Range that makes no sense: %q", clip(s))
	}
	return start, end + 1, total, nil
}
