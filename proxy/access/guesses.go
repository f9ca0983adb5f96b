package access

import (
	"sync"
	"time"
)

const (
	// freeGuesses are the logins of registries that untrusted callers from one place may try in vain,
	// one after the other, before the next one must wait.
	freeGuesses = 10

	shortestGuessPause = time.Second
	longestGuessPause  = time.Minute

	// guessesLife is for how long they count after the last of them.
	guessesLife = 15 * time.Minute

	maxGuessers     = 4096
	maxLoginsOfEach = 256
)

// Guesses are the logins that untrusted callers have sent to registries in vain. A registry counts them
// for the address of this host, and may refuse the engines' own logins for it. A login counts once,
// however often a client repeats it, and one that was right never waits.
type Guesses struct {
	now func() time.Time

	mu   sync.Mutex
	from map[string]*guesser
}

// guesser is where guesses come from.
type guesser struct {
	logins      map[string]bool // by fingerprint; true: it was right
	wrong       int
	last, until time.Time
}

// NewGuesses returns Guesses of which there are none yet.
func NewGuesses() *Guesses { return &Guesses{now: time.Now, from: map[string]*guesser{}} }

// Try records that a login is about to be sent for a caller from somewhere. It returns how long the
// caller must wait first; then the login must not be sent. A login counts as wrong until Settle is
// called, so that simultaneous guesses gain nothing.
func (g *Guesses) Try(from, login string) (wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	s := g.from[from]
	if s == nil || now.Sub(s.last) > guessesLife {
		g.makeRoom(now)
		s = &guesser{logins: map[string]bool{}}
		g.from[from] = s
	}
	if _, known := s.logins[login]; known {
		return 0
	}
	if now.Before(s.until) {
		return s.until.Sub(now)
	}
	if len(s.logins) >= maxLoginsOfEach {
		clear(s.logins)
	}
	s.logins[login] = false
	s.wrong++
	s.last = now
	if excess := s.wrong - freeGuesses; excess >= 0 {
		pause := longestGuessPause
		if excess < 6 {
			pause = shortestGuessPause << excess
		}
		s.until = now.Add(min(pause, longestGuessPause))
	}
	return 0
}

// Settle records whether a registry has taken a login. If it has not said so, known is false.
func (g *Guesses) Settle(from, login string, right, known bool) {
	if known && !right {
		return // it counts already
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.from[from]
	if s == nil {
		return
	}
	if was, found := s.logins[login]; !found || was {
		return
	}
	s.wrong--
	s.until = time.Time{}
	if s.logins[login] = true; !known {
		delete(s.logins, login)
	}
}

// makeRoom leaves room for one more guesser. g.mu is held.
func (g *Guesses) makeRoom(now time.Time) {
	if len(g.from) < maxGuessers {
		return
	}
	for from, s := range g.from {
		if now.Sub(s.last) > guessesLife {
			delete(g.from, from)
		}
	}
	for from := range g.from { // it must not look through all of them each time
		if len(g.from) < maxGuessers-maxGuessers/4 {
			return
		}
		delete(g.from, from)
	}
}
