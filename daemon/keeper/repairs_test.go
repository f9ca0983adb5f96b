package keeper

import (
	"maps"
	"os"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

func (k *keeping) expectRepairs(what string, want int64) {
	k.Helper()
	k.settle()
	if got := k.repairs.counts[engine.Docker]; got != want || len(k.repairs.counts) > 1 {
		k.Errorf("%s: %v repairs, want %d of Docker's", what, k.repairs.counts, want)
	}
	if !k.configured() {
		k.Errorf("%s: daemon.json is %s", what, k.read(daemonJSON))
	}
}

func TestEachTimeThatAnEntryIsPutBackIsARepair(t *testing.T) {
	k := keep(t, "26.1.5", "2.1.9", map[string]string{daemonJSON: "{}"}, dockerOnly())
	k.expectRepairs("the first entry", 0)
	k.put(daemonJSON, `{"icc": true}`)
	k.expectRepairs("a file that another program has written", 1)
	if err := os.Remove(k.path(daemonJSON)); err != nil {
		t.Fatal(err)
	}
	k.expectRepairs("a file that is gone", 2)
	k.expectRepairs("nothing", 2)
}

func TestPuttingBackAnEntryOfAnEarlierProcessIsARepair(t *testing.T) {
	k := keep(t, "26.1.5", "2.1.9", map[string]string{daemonJSON: "{}"}, dockerOnly())
	k.settle()
	k.rounds, k.later = newRounds(k.host), 0
	k.expectRepairs("the start", 0)
	k.put(daemonJSON, "{}")
	k.expectRepairs("a file that another program has written", 1)
}

func TestWritingWhatIsNewlyWantedIsNoRepair(t *testing.T) {
	k := keep(t, "26.1.5", "2.1.9", map[string]string{daemonJSON: "{}"}, dockerOnly())
	k.settle()
	k.want.Mirror = "http://127.0.0.1:306"
	k.settle()
	k.want.Mirror = ourMirror
	k.expectRepairs("another address and back", 0)
}

func TestFilesThatFollowOthersAreNotRepaired(t *testing.T) {
	now := time.Now()
	var r repairs
	r.forget()
	r.see([]engine.State{{Files: []engine.File{{Path: "/a", State: engine.InPlace}, {Path: "/b", State: engine.Missing}}}}, now)
	for _, c := range []struct {
		path    string
		changed time.Time
		before  string
	}{
		{"/a", now.Add(-time.Hour), "as it was seen"},
		{"/a", now.Add(time.Hour), "after"}, // as it was written
		{"/b", now.Add(time.Hour), "never had it"},
	} {
		r.wrote(change(c.path, c.changed, c.before), now)
	}
	if len(r.counts) != 0 {
		t.Errorf("%v repairs, want none", r.counts)
	}
	r.wrote(change("/a", now, "another"), now)
	if want := map[string]int64{engine.Docker: 1}; !maps.Equal(r.counts, want) {
		t.Errorf("%v repairs, want %v", r.counts, want)
	}
}

func change(path string, changed time.Time, before string) hostconfig.Change {
	return hostconfig.Change{Engine: engine.Docker, Path: path, Changed: changed, Before: []byte(before), After: []byte("after")}
}
