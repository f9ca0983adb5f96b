package access

import (
	"fmt"
	"testing"
	"time"
)

func TestGuessesWaitAndOthersDoNot(t *testing.T) {
	t.Parallel()
	c := &clock{time.Now()}
	g := NewGuesses()
	g.now = c.now
	if g.Try("a", "right") != 0 {
		t.Fatal("the first login waits")
	}
	g.Settle("a", "right", true, true)
	for i := range freeGuesses {
		for range 3 { // a client repeats what it has
			if wait := g.Try("a", fmt.Sprint(i)); wait != 0 {
				t.Fatalf("guess %d waits %v", i, wait)
			}
			g.Settle("a", fmt.Sprint(i), false, true)
		}
	}
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		if wait := g.Try("a", "next"); wait != pause*time.Second {
			t.Errorf("a guess waits %v, want %v", wait, pause*time.Second)
		}
		if g.Try("b", "next") != 0 || g.Try("a", "right") != 0 {
			t.Error("another place, or a login that was right, waits")
		}
		c.at = c.at.Add(pause * time.Second)
		if wait := g.Try("a", fmt.Sprint("after ", pause, c.at)); wait != 0 {
			t.Errorf("after the pause it waits %v", wait)
		}
	}
	if c.at = c.at.Add(guessesLife + time.Second); g.Try("a", "much later") != 0 {
		t.Error("guesses count for ever")
	}
}

func TestALoginThatTurnsOutToBeRightDoesNotCount(t *testing.T) {
	t.Parallel()
	c := &clock{time.Now()}
	g := NewGuesses()
	g.now = c.now
	for i := range 3 * freeGuesses {
		login := fmt.Sprint(i)
		if wait := g.Try("a", login); wait != 0 {
			t.Fatalf("login %d waits %v", i, wait)
		}
		g.Settle("a", login, i%2 == 0, i%2 == 0) // right, or the registry could not say
		g.Settle("a", login, true, true)
	}
	for i := range freeGuesses {
		g.Try("a", fmt.Sprint("at once ", i))
	}
	if g.Try("a", "one more") == 0 {
		t.Error("simultaneous guesses do not count")
	}
}

func TestGuessersAreBounded(t *testing.T) {
	t.Parallel()
	g := NewGuesses()
	for i := range maxGuessers + 10 {
		g.Try(fmt.Sprint(i), "login")
	}
	for i := range 2 * maxLoginsOfEach {
		g.Try("a", fmt.Sprint(i))
		g.Settle("a", fmt.Sprint(i), true, true)
	}
	if len(g.from) > maxGuessers || len(g.from["a"].logins) > maxLoginsOfEach {
		t.Errorf("%d guessers, %d logins of one", len(g.from), len(g.from["a"].logins))
	}
}
