package access

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"
)

func TestUntrustedCallersShareABudgetOfMemory(t *testing.T) {
	t.Parallel()
	b := NewBudget(100)
	first, second := b.Allowance(Caller{}), b.Allowance(Caller{})
	if err := first.Hold(60); err != nil {
		t.Fatal(err)
	}
	if err := second.Hold(60); !errors.Is(err, ErrNoMemory) {
		t.Errorf("120 of 100 bytes: %v", err)
	}
	if err := first.Hold(60); err != nil {
		t.Errorf("what a request holds already is counted twice: %v", err)
	}
	if err := second.Hold(40); err != nil {
		t.Errorf("the rest: %v", err)
	}
	first.Release()
	first.Release()
	if err := second.Hold(100); err != nil {
		t.Errorf("after the first is done: %v", err)
	}
	second.Release()
	if err := second.Hold(10); !errors.Is(err, ErrNoMemory) {
		t.Errorf("a request that is over takes memory: %v", err)
	}
	if n := b.free.Load(); n != 100 {
		t.Errorf("%d of 100 bytes are free when all are done", n)
	}
}

func TestATrustedCallerHasNoBudget(t *testing.T) {
	t.Parallel()
	a := NewBudget(0).Allowance(Caller{Trusted: true})
	if err := a.Hold(1 << 40); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(a.Reader(io.NopCloser(bytes.NewReader(make([]byte, 1000))))); err != nil || len(got) != 1000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	a.Release()
}

func TestABodyCountsAsItIsRead(t *testing.T) {
	t.Parallel()
	b := NewBudget(1 << 20)
	var wait sync.WaitGroup
	var mu sync.Mutex
	refused := 0
	for range 20 {
		wait.Go(func() {
			a := b.Allowance(Caller{})
			got, err := io.ReadAll(a.Reader(io.NopCloser(bytes.NewReader(make([]byte, 200<<10)))))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, ErrNoMemory):
				refused++
			case err != nil || len(got) != 200<<10:
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wait.Wait()
	if refused < 14 || refused == 20 {
		t.Errorf("%d of 20 readers of 200 KiB were refused by a budget of 1 MiB", refused)
	}
}
