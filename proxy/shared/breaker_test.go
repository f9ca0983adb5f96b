package shared

import (
	"testing"
	"time"
)

func TestTheBreakerOpensAndOneProbeClosesIt(t *testing.T) {
	var b breaker
	now := time.Now()
	soft := &fault{code: codeUnreachable}
	for range tripsAfter - 1 {
		b.failed(soft, now)
		if closed, _ := b.ask(now); !closed {
			t.Fatal("it opened too early")
		}
	}
	b.failed(soft, now)
	if closed, probe := b.ask(now); closed || probe {
		t.Fatalf("after %d failures: closed %t, probe %t", tripsAfter, closed, probe)
	}
	if b.fault() != soft {
		t.Error("it does not say why")
	}
	now = now.Add(shortestPause)
	if closed, probe := b.ask(now); closed || !probe {
		t.Fatalf("after the pause: closed %t, probe %t", closed, probe)
	}
	if _, probe := b.ask(now); probe {
		t.Error("there are two probes at a time")
	}
	b.unknown() // it was cut off
	if _, probe := b.ask(now); !probe {
		t.Error("a probe that has found out nothing is not repeated")
	}
	b.succeeded()
	if closed, _ := b.ask(now); !closed || b.fault() != nil {
		t.Error("a probe that succeeded does not close it")
	}
}

func TestPausesGrowUntilSomethingFromTheStoreWasVerified(t *testing.T) {
	var b breaker
	now := time.Now()
	hard := &fault{code: codeWrongContent, tripsAtOnce: true}
	trip := func() time.Duration {
		b.failed(hard, now)
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.until.Sub(now)
	}
	for want := shortestPause; want < longestPause; want *= 2 {
		if got := trip(); got != want {
			t.Fatalf("a pause of %v, want %v", got, want)
		}
		b.succeeded() // a probe cannot show that content is right
	}
	if got := trip(); got != longestPause {
		t.Errorf("the longest pause is %v", got)
	}
	b.proved()
	if got := trip(); got != shortestPause {
		t.Errorf("after a verified blob: %v", got)
	}
}

func TestLateFailuresDoNotMakeAPauseLonger(t *testing.T) {
	var b breaker
	now := time.Now()
	hard := &fault{code: codeUnreachable, tripsAtOnce: true}
	for range 10 { // requests that were under way together
		b.failed(hard, now)
	}
	if _, probe := b.ask(now.Add(shortestPause)); !probe {
		t.Error("ten requests that failed together count ten times")
	}
}

func TestDistrustIsBoundedAndEnds(t *testing.T) {
	var d distrust
	now := time.Now()
	d.add(nothing, now)
	if !d.has(nothing, now) || d.has(nothing, now.Add(distrustedFor)) {
		t.Error("a blob is not distrusted for an hour")
	}
	for i := range maxDistrusted + 10 {
		d.add(digestOf(i), now)
	}
	if len(d.since) > maxDistrusted {
		t.Errorf("%d blobs are remembered", len(d.since))
	}
}
