package transfer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
)

// Version 0.1 wrote each blob that it fetched to one file below partial/, from the start, and had no
// index. Its blobs and records are used, and what it left unfinished is removed.
func TestACacheFolderOfThePreviousVersionIsUsed(t *testing.T) {
	u := newUpstream(t, 0, right, small, big)
	r := start(t, nil, u)
	r.whole("before", small)
	r.Stop()
	for _, newer := range []string{"USAGE", "holders"} {
		if err := os.RemoveAll(filepath.Join(r.options.Cache, newer)); err != nil {
			t.Fatal(err)
		}
	}
	partial := filepath.Join(r.options.Cache, "partial")
	var left []string
	for n, content := range [][]byte{big.Bytes[:large/2], other.Bytes[:1000], nil} {
		left = append(left, filepath.Join(partial, fmt.Sprintf("%s-%d-%d", big.Digest.Encoded()[:16], 4711, n)))
		if err := errors.Join(os.MkdirAll(partial, 0o750), os.WriteFile(left[n], content, 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	r = &rig{harness.Start(t, r.options), t, r.options}
	calls, _ := u.counts()
	r.whole("what the previous version stored", small)
	if again, _ := u.counts(); again != calls {
		t.Error("it was fetched again")
	}
	r.whole("what the previous version left unfinished", big)
	r.keepsNothingWrong()
	_ = r.again()
	for _, path := range left {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is still there", filepath.Base(path))
		}
	}
}
