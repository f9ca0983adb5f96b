package renewal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func login(password string) credential.Credential {
	return credential.Name("test", "x", credential.Credential{Username: "me", Password: credential.NewSecret(password)})
}

// source is a program: each run returns what next returns.
type source struct {
	mu   sync.Mutex
	runs int
	next func(run int) (Answer, error)
	ran  chan int // gets the number of each run after it, if there is room
}

func (s *source) fetch(context.Context, bool) (Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs++
	answer, err := s.next(s.runs)
	select {
	case s.ran <- s.runs:
	default:
	}
	return answer, err
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs
}

func newSource(t *testing.T, next func(run int) (Answer, error)) (*Answers, *source) {
	t.Helper()
	a := &Answers{}
	t.Cleanup(a.Close)
	return a, &source{next: next, ran: make(chan int, 1000)}
}

func mustGet(t *testing.T, a *Answers, s *source) credential.Credential {
	t.Helper()
	c, err := a.Get(t.Context(), "x", s.fetch)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// eventually waits for what happens in the background.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 1000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(what)
}

func TestManyRequestsCostOneRun(t *testing.T) {
	a, s := newSource(t, func(int) (Answer, error) { return Answer{Credential: login("p"), Life: time.Hour}, nil })
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if c, err := a.Get(t.Context(), "x", s.fetch); err != nil || c.Password.Reveal() != "p" {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if s.count() != 1 {
		t.Errorf("%d runs", s.count())
	}
}

// No request waits for a renewal: the one that blocks here would wait for ever.
func TestALoginIsRenewedAheadOfItsEndAndOffThePathOfRequests(t *testing.T) {
	block := make(chan struct{})
	a, s := newSource(t, func(run int) (Answer, error) {
		if run > 1 {
			<-block
		}
		return Answer{Credential: login(fmt.Sprint(run)), Life: 10 * time.Second}, nil
	})
	mustGet(t, a, s)
	a.mu.Lock()
	a.stored["x"].renew = time.Now() // as if three quarters of its life were over
	a.mu.Unlock()
	for range 50 {
		if got := mustGet(t, a, s).Password.Reveal(); got != "1" {
			t.Fatalf("got the login %s", got)
		}
	}
	close(block)
	eventually(t, "the renewed login is not used", func() bool { return mustGet(t, a, s).Password.Reveal() == "2" })
	if s.count() != 2 {
		t.Errorf("%d runs", s.count())
	}
}

func TestALoginThatIsUsedIsRenewedWithoutARequest(t *testing.T) {
	a, s := newSource(t, func(int) (Answer, error) { return Answer{Credential: login("p"), Life: 400 * time.Millisecond}, nil })
	mustGet(t, a, s)
	eventually(t, "it was not renewed", func() bool { return s.count() == 2 })
	// And not for ever, if no request uses it.
	time.Sleep(time.Second)
	if s.count() != 2 {
		t.Errorf("%d runs without a request", s.count())
	}
}

func TestTheLastGoodLoginServesWhileTheProgramFails(t *testing.T) {
	broken := errors.New("broken")
	a, s := newSource(t, func(run int) (Answer, error) {
		if run == 1 {
			return Answer{Credential: login("p"), Life: 200 * time.Millisecond, Grace: time.Hour}, nil
		}
		return Answer{}, broken
	})
	mustGet(t, a, s)
	eventually(t, "the failure is not reported", func() bool { return errors.Is(a.Fault(), broken) })
	time.Sleep(300 * time.Millisecond) // its life is over
	for range 100 {
		mustGet(t, a, s)
	}
	if s.count() > 3 {
		t.Errorf("a program that fails was run %d times at once", s.count())
	}
}

func TestWithoutALoginAFailureIsAnErrorAndNotTriedAtEachRequest(t *testing.T) {
	broken := errors.New("broken")
	a, s := newSource(t, func(int) (Answer, error) { return Answer{}, broken })
	for range 100 {
		if c, err := a.Get(t.Context(), "x", s.fetch); !errors.Is(err, broken) || !c.IsZero() {
			t.Fatal(err)
		}
	}
	if s.count() > 2 {
		t.Errorf("%d runs", s.count())
	}
}

// ecr-login says "not found" when it has no network.
func TestNothingIsNotBelievedWhileTheLastLoginLives(t *testing.T) {
	a, s := newSource(t, func(run int) (Answer, error) {
		if run == 1 {
			return Answer{Credential: login("p"), Life: time.Second, Grace: time.Hour}, nil
		}
		return Answer{Life: time.Hour}, nil
	})
	mustGet(t, a, s)
	eventually(t, "it was not asked again", func() bool { return s.count() >= 2 })
	if a.Fault() == nil {
		t.Error("no fault is reported")
	}
	// A login that was deleted ends with its life, and has no grace.
	eventually(t, "it is never believed", func() bool {
		c, err := a.Get(t.Context(), "x", s.fetch)
		return err == nil && c.IsZero()
	})
	if err := a.Fault(); err != nil {
		t.Errorf("a login that was deleted is still a fault: %v", err)
	}
}

func TestARefusedLoginIsFetchedAgainOnce(t *testing.T) {
	a, s := newSource(t, func(run int) (Answer, error) {
		return Answer{Credential: login(fmt.Sprint(min(run, 2))), Life: time.Hour}, nil
	})
	first := mustGet(t, a, s)
	next, ok := first.Renewed(t.Context())
	if !ok || next.Password.Reveal() != "2" {
		t.Fatalf("got %q", next.Password.Reveal())
	}
	for range 20 { // others whose login was refused find the new one
		if again, ok := first.Renewed(t.Context()); !ok || again.Generation != next.Generation {
			t.Fatal("the new login is not found")
		}
		if _, ok := next.Renewed(t.Context()); ok {
			t.Fatal("the same login counts as another one")
		}
	}
	if s.count() != 2 {
		t.Errorf("%d runs", s.count())
	}
}

func TestALoginThatMustNotBeStoredIsFetchedEachTime(t *testing.T) {
	a, s := newSource(t, func(int) (Answer, error) { return Answer{Credential: login("p")}, nil })
	for range 3 {
		mustGet(t, a, s)
	}
	if s.count() != 3 {
		t.Errorf("%d runs", s.count())
	}
}

func TestARequestThatLeavesDoesNotEndTheRunForOthers(t *testing.T) {
	block := make(chan struct{})
	a, s := newSource(t, func(int) (Answer, error) {
		<-block
		return Answer{Credential: login("p"), Life: time.Hour}, nil
	})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Get(gone, "x", s.fetch); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(block)
	mustGet(t, a, s)
	if s.count() != 1 {
		t.Errorf("%d runs", s.count())
	}
}

func TestTheAnswersAreBounded(t *testing.T) {
	a, s := newSource(t, func(int) (Answer, error) { return Answer{Credential: login("p"), Life: time.Hour}, nil })
	for i := range 2 * maxAnswers {
		if _, err := a.Get(t.Context(), fmt.Sprint(i), s.fetch); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(a.stored); n > maxAnswers {
		t.Errorf("%d are stored", n)
	}
}
