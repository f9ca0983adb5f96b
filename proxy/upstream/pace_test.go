package upstream

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAMirrorThatIsSlowerThanTheNextOneIsSkippedAndIsAskedAfterIt(t *testing.T) {
	mirror, home := newMirror(t, status(404)), newMirror(t, status(404))
	var seen skips
	p := Pool{newUpstream(t, Config{URL: mustURL(mirror.URL), SkipChanged: seen.add}), newUpstream(t, Config{URL: mustURL(home.URL)})}
	p[0].pace.base = time.Hour
	q := &query{turns: newTurns(t.Context(), p, false)}
	for i := range fewest {
		p[0].pace.add(ofBlob, 300*time.Millisecond)
		p[1].pace.add(ofBlob, 100*time.Millisecond)
		q.compare(ofBlob)
		if early := p[0].pace.skipped() != skipNot; early && i < fewest-1 {
			t.Fatalf("it is skipped after %d requests", i+1)
		}
	}
	if s := seen.list(); len(s) != 1 || !strings.Contains(s[0].Error(), "takes 300ms to respond, and "+p[1].Host()+" takes 100ms") {
		t.Fatalf("it reported %v", s)
	}
	// What the registry does not have, the mirror may have.
	resp, _, err := p.Do(t.Context(), anonymous(manifestPath), nil)
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Fatalf("%v, %v", resp, err)
	}
	drain(resp)
	if len(home.requests()) != 1 || len(mirror.requests()) != 1 {
		t.Errorf("asked: %q and %q", mirror.requests(), home.requests())
	}
	home.set(nil)
	if resp, _, err = p.Do(t.Context(), anonymous(manifestPath), nil); err != nil || len(mirror.requests()) != 1 {
		t.Fatalf("%v, the mirror was asked %q", err, mirror.requests())
	}
	drain(resp)
}

func TestAMirrorThatIsAboutAsFastAsTheNextOneIsNotSkipped(t *testing.T) {
	for _, took := range []time.Duration{time.Millisecond, 20 * time.Millisecond, 130 * time.Millisecond} {
		p := Pool{newUpstream(t, Config{URL: mustURL("http://a.test")}), newUpstream(t, Config{URL: mustURL("http://b.test")})}
		for range paceSamples {
			p[0].pace.add(ofManifest, took)
			p[1].pace.add(ofManifest, took*3/4)
		}
		(&query{turns: newTurns(t.Context(), p, false)}).compare(ofManifest)
		if p[0].pace.skipped() != skipNot {
			t.Errorf("it is skipped with %s", took)
		}
	}
}

func TestAtMostOneOfTwentyRequestsIsHedged(t *testing.T) {
	var p pace
	const requests = 2000
	hedged := 0
	for range requests {
		if p.spend() {
			hedged++
		}
		p.add(ofBlob, time.Millisecond)
	}
	if most := requests/20 + mostHedges; hedged > most || hedged < requests/20 {
		t.Errorf("%d hedges for %d requests, want at most %d", hedged, requests, most)
	}
}

func TestTheUsualTimeIsTheNinetiethPercentileWithinBounds(t *testing.T) {
	var p pace
	if p.usual(ofBlob) != longestUsual {
		t.Errorf("without any request: %s", p.usual(ofBlob))
	}
	for i := range 20 {
		p.add(ofBlob, time.Duration(i+1)*10*time.Millisecond)
	}
	if got := p.usual(ofBlob); got != 190*time.Millisecond {
		t.Errorf("of 10 to 200 ms: %s", got)
	}
	for range paceSamples {
		p.add(ofBlob, time.Microsecond)
		p.add(ofManifest, time.Hour)
	}
	if p.usual(ofBlob) != shortestUsual || p.usual(ofManifest) != longestUsual {
		t.Errorf("%s and %s", p.usual(ofBlob), p.usual(ofManifest))
	}
}

func TestASkippedMirrorIsTriedLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		if !p.skip(skipSilent, ofBlob) || p.skip(skipSlow, ofBlob) {
			t.Fatal("the first reason counts")
		}
		var waits []time.Duration
		for range 9 {
			started := time.Now()
			for !isDue(&p) {
				time.Sleep(time.Second)
			}
			if isDue(&p) {
				t.Fatal("it is tried twice at once")
			}
			waits = append(waits, time.Since(started))
			p.tried(slower)
		}
		for i, want := range []time.Duration{5, 10, 20, 40, 80, 160, 300, 300, 300} {
			if waits[i] != want*time.Second {
				t.Fatalf("it is tried after %v", waits)
			}
		}
		if !p.tried(asGood) || p.skipped() != skipNot {
			t.Error("it is skipped after a good trial")
		}
		// Soon after that it waits for long again; after a long time, it does not.
		p.skip(skipSlow, ofBlob)
		if left := time.Until(p.until); left != longestSkip {
			t.Errorf("skipped again for %s", left)
		}
		p.tried(asGood)
		time.Sleep(2 * longestSkip)
		p.skip(skipSlow, ofBlob)
		if left := time.Until(p.until); left != firstSkip {
			t.Errorf("skipped after a long time for %s", left)
		}
	})
}

func isDue(p *pace) bool {
	_, due := p.due(ofBlob)
	return due
}

// isResting reports whether no trial is under way.
func (p *pace) isResting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.trying
}

// makeDue ends the time for which p is skipped without a trial.
func (p *pace) makeDue() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until = time.Now()
}
