package proxy

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/internal/extent"
)

const fooDigest = digest.Digest("sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")

func TestARangeIsReadAndCutToTheLengthOfTheBlob(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		header     string
		total      int64
		start, end int64
		ok         bool
	}{
		{"bytes=0-0", 10, 0, 1, true},
		{"bytes=3-", 10, 3, 10, true},
		{"bytes=3-5", 10, 3, 6, true},
		{"bytes=3-99", 10, 3, 10, true},
		{"bytes=-4", 10, 6, 10, true},
		{"bytes=-40", 10, 0, 10, true},
		{"bytes=10-", 10, 10, 10, false},
		{"bytes=-1", 0, 0, 0, false},
		// Numbers at and beyond the end of int64.
		{"bytes=0-9223372036854775807", 10, 0, 10, true},
		{"bytes=0-9223372036854775806", 10, 0, 10, true},
		{"bytes=0-99999999999999999999", 10, 0, 10, true},
		{"bytes=9223372036854775807-", 10, maxOffset, 10, false},
		{"bytes=99999999999999999999-", 10, maxOffset, 10, false},
		{"bytes=9223372036854775807-9223372036854775807", 10, maxOffset, 10, false},
		{"bytes=-9223372036854775807", 10, 0, 10, true},
		{"bytes=-99999999999999999999", 10, 0, 10, true},
		{"bytes=0-9223372036854775807", math.MaxInt64, 0, math.MaxInt64, true},
	} {
		all := parseRanges(http.Header{"Range": {tt.header}}, fooDigest)
		if len(all) != 1 {
			t.Errorf("%q is %v", tt.header, all)
			continue
		}
		e, ok := all[0].Of(tt.total)
		if ok != tt.ok || ok && (e.Start != tt.start || e.End != tt.end) {
			t.Errorf("%q of %d: %v %v, want [%d, %d) %v", tt.header, tt.total, e, ok, tt.start, tt.end, tt.ok)
		}
	}
}

func TestWhatIsMalformedIsTheWhole(t *testing.T) {
	t.Parallel()
	for _, header := range []string{
		"", "bytes=5-3", "bytes=+1-3", "bytes=-0", "bytes=a-b", "lines=1-2", "bytes=", "bytes=1", "bytes=-", "bytes=1-2-3",
		"bytes=0-1,x", "bytes=0-1,5-3", "bytes=,", "bytes=" + strings.Repeat("0-0,", maxRanges) + "1-1",
	} {
		if all := parseRanges(http.Header{"Range": {header}}, fooDigest); all != nil {
			t.Errorf("%.40q is %v", header, all)
		}
	}
}

func TestSeveralRangesAreSentInTheirOrderAndEachByteOnce(t *testing.T) {
	t.Parallel()
	for header, want := range map[string][]extent.Extent{
		"bytes=0-1,3-4":             {{Start: 0, End: 2}, {Start: 3, End: 5}},
		"bytes=3-4, 0-1":            {{Start: 3, End: 5}, {Start: 0, End: 2}},
		"bytes=0-1,2-3":             {{Start: 0, End: 2}, {Start: 2, End: 4}},
		"bytes=0-5,3-4":             {{Start: 0, End: 6}},
		"bytes=8-, 0-1 ,-1":         {{Start: 0, End: 2}, {Start: 8, End: 10}},
		"bytes=0-0,,9-":             {{Start: 0, End: 1}, {Start: 9, End: 10}},
		"bytes=20-,0-0":             {{Start: 0, End: 1}},
		"bytes=20-,30-":             nil,
		"bytes=0-,0-,0-,0-,0-,0-":   {{Start: 0, End: 10}},
		"bytes=0-99999999999999,2-": {{Start: 0, End: 10}},
	} {
		if got := partsOf(parseRanges(http.Header{"Range": {header}}, fooDigest), 10); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", header, got, want)
		}
	}
}

func TestIfRangeHoldsForTheDigestAlone(t *testing.T) {
	t.Parallel()
	for cond, some := range map[string]bool{`"` + fooDigest.String() + `"`: true, `"other"`: false, "Mon, 23 Nov 2026 12:00:30 GMT": false, `W/"` + fooDigest.String() + `"`: false} {
		all := parseRanges(http.Header{"Range": {"bytes=1-2"}, "If-Range": {cond}}, fooDigest)
		if (all != nil) != some {
			t.Errorf("If-Range %s: a range is %v", cond, all)
		}
	}
}

func FuzzParseRanges(f *testing.F) {
	f.Add("bytes=1-2", int64(10))
	f.Add("bytes=-3", int64(2))
	f.Add("bytes=1-2,-3,7-", int64(20))
	f.Add("bytes=0-9223372036854775807", int64(9223372036854775807))
	f.Add("bytes=-9223372036854775807", int64(1))
	f.Fuzz(func(t *testing.T, header string, total int64) {
		if total < 0 {
			return
		}
		all := parseRanges(http.Header{"Range": {header}}, fooDigest)
		for _, r := range all {
			again := parseRanges(http.Header{"Range": {rangeHeader(r)}}, fooDigest)
			if rangeHeader(r) != "" && (len(again) != 1 || again[0] != r) {
				t.Fatalf("%q is %+v, written again it is %+v", header, r, again)
			}
		}
		var sum int64
		for _, e := range partsOf(all, total) {
			if e.Start < 0 || e.End > total || e.Len() == 0 && total > 0 {
				t.Fatalf("%q of %d has %v", header, total, e)
			}
			sum += e.Len()
		}
		if sum > total {
			t.Fatalf("%q of %d sends %d bytes", header, total, sum)
		}
	})
}

func FuzzParseContentRange(f *testing.F) {
	f.Add("bytes 0-0/1")
	f.Add("bytes 5-9/*")
	f.Add("bytes 0-9223372036854775807/9223372036854775807")
	f.Add("bytes 0-9223372036854775807/*")
	f.Fuzz(func(t *testing.T, header string) {
		start, end, total, err := parseContentRange(header)
		if err == nil && (start < 0 || end <= start || total != -1 && total < end) {
			t.Fatalf("%q is [%d, %d) of %d", header, start, end, total)
		}
	})
}
