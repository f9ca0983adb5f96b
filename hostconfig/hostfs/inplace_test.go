package hostfs

import (
	"strings"
	"testing"
)

func TestTornIsABeginningOfTheNewAndTheRestOfTheOld(t *testing.T) {
	const long, short = "the longer of the two\n", "the short\n"
	for _, pair := range [][2]string{{long, short}, {short, long}, {"", long}, {long, ""}} {
		before, after := pair[0], pair[1]
		for k := 0; k <= len(after); k++ {
			now := after[:k]
			if k < len(before) {
				now += before[k:]
			}
			if !(&InPlace{Before: []byte(before), After: []byte(after)}).tore([]byte(now)) {
				t.Errorf("%q is not seen as torn between %q and %q", now, before, after)
			}
		}
		if (&InPlace{Before: []byte(before), After: []byte(after)}).tore([]byte(strings.ToUpper(long))) {
			t.Errorf("another program's file passes for torn between %q and %q", before, after)
		}
	}
}
