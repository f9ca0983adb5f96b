package proxy

import (
	"math"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"
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
		// What is not one range is the whole.
		{"", 10, 0, 10, true},
		{"bytes=0-1,3-4", 10, 0, 10, true},
		{"bytes=5-3", 10, 0, 10, true},
		{"bytes=+1-3", 10, 0, 10, true},
		{"bytes=-0", 10, 0, 10, true},
		{"bytes=a-b", 10, 0, 10, true},
		{"lines=1-2", 10, 0, 10, true},
	} {
		h := http.Header{}
		if tt.header != "" {
			h.Set("Range", tt.header)
		}
		start, end, ok := parseRange(h, fooDigest).of(tt.total)
		if start != tt.start || end != tt.end || ok != tt.ok {
			t.Errorf("%q of %d: [%d, %d) %v, want [%d, %d) %v", tt.header, tt.total, start, end, ok, tt.start, tt.end, tt.ok)
		}
	}
}

func TestIfRangeHoldsForTheDigestAlone(t *testing.T) {
	t.Parallel()
	for cond, some := range map[string]bool{`"` + fooDigest.String() + `"`: true, `"other"`: false, "Mon, 23 Nov 2026 12:00:30 GMT": false, `W/"` + fooDigest.String() + `"`: false} {
		r := parseRange(http.Header{"Range": {"bytes=1-2"}, "If-Range": {cond}}, fooDigest)
		if r.some != some {
			t.Errorf("If-Range %s: a range is %v", cond, r.some)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	f.Add("bytes=1-2", int64(10))
	f.Add("bytes=-3", int64(2))
	f.Add("bytes=0-9223372036854775807", int64(9223372036854775807))
	f.Add("bytes=-9223372036854775807", int64(1))
	f.Fuzz(func(t *testing.T, header string, total int64) {
		if total < 0 {
			return
		}
		r := parseRange(http.Header{"Range": {header}}, fooDigest)
		if r.last >= 0 && r.last+1 <= r.first || r.first < 0 || r.suffix < 0 {
			t.Fatalf("%q is %+v", header, r)
		}
		if start, end, ok := r.of(total); ok && (start < 0 || end > total || start > end) {
			t.Fatalf("%q of %d is [%d, %d)", header, total, start, end)
		}
		if again := parseRange(http.Header{"Range": {r.header()}}, fooDigest); r.some && again != r {
			t.Fatalf("%q is %+v, written again it is %+v", header, r, again)
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
