package proxy

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/internal/extent"
	"github.com/sidemirror/sidemirror/proxy/transfer"
)

// maxRanges is how many ranges one request may ask for. podman asks for up to 1024 chunks of a layer
// at once. A request for more gets the whole.
const maxRanges = 1024

// parseRanges reads Range and If-Range (RFC 9110, 14.2). What is malformed, and a condition that does
// not hold, mean the whole, which a server may always send: nil.
func parseRanges(h http.Header, dgst digest.Digest) []transfer.Range {
	values := h.Values("Range")
	if len(values) != 1 {
		return nil
	}
	if cond := h.Get("If-Range"); cond != "" && cond != strconv.Quote(dgst.String()) {
		return nil
	}
	specs, ok := strings.CutPrefix(values[0], "bytes=")
	if !ok || strings.Count(specs, ",") >= maxRanges {
		return nil
	}
	var all []transfer.Range
	for spec := range strings.SplitSeq(specs, ",") {
		if spec = strings.TrimSpace(spec); spec == "" && strings.Contains(specs, ",") {
			continue // a list may have empty elements (RFC 9110, 5.6.1)
		}
		r, ok := parseRange(spec)
		if !ok {
			return nil
		}
		all = append(all, r)
	}
	return all
}

// parseRange reads one range: "1-2", "1-" or "-2".
func parseRange(spec string) (r transfer.Range, ok bool) {
	first, last, dash := strings.Cut(spec, "-")
	if !dash {
		return r, false
	}
	if first == "" {
		suffix, ok := parseOffset(last)
		return transfer.Range{Start: -suffix, End: -1}, ok && suffix > 0
	}
	if r.Start, ok = parseOffset(first); !ok {
		return r, false
	}
	if r.End = -1; last != "" {
		end, ok := parseOffset(last)
		if r.End = end + 1; !ok || end < r.Start {
			return r, false
		}
	}
	return r, true
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

// rangeHeader returns the value for Range, empty for the whole.
func rangeHeader(r transfer.Range) string {
	switch {
	case r.Start < 0:
		return fmt.Sprintf("bytes=%d", r.Start)
	case r.End >= 0:
		return fmt.Sprintf("bytes=%d-%d", r.Start, r.End-1)
	case r.Start > 0:
		return fmt.Sprintf("bytes=%d-", r.Start)
	}
	return ""
}

// partsOf returns the bytes of the ranges in a blob of that size, without those that it has not.
// Ranges that overlap are joined, so that no byte is sent twice.
func partsOf(ranges []transfer.Range, size int64) []extent.Extent {
	var parts []extent.Extent
	var joined extent.Set
	var sum int64
	for _, r := range ranges {
		if e, ok := r.Of(size); ok && e.Len() > 0 { // of nothing there is no range
			parts = append(parts, e)
			joined.Add(e)
			sum += e.Len()
		}
	}
	if sum > joined.Bytes() {
		return joined.All()
	}
	return parts
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

// contentRange returns the value for Content-Range.
func contentRange(e extent.Extent, total int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", e.Start, e.End-1, total)
}
