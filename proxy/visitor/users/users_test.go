package users

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sidemirror/sidemirror/internal/secret"
)

var (
	home   = netip.MustParsePrefix("198.51.100.7/32")
	abroad = netip.MustParsePrefix("2001:db8::/64")
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// people returns Users with ann and bob, their file, and their clock.
func people(t *testing.T) (*Users, string, *clock) {
	t.Helper()
	path := fileOf(t, "ann:"+hashOf(t, "right")+"\nbob:"+hashOf(t, "bob's"))
	u, c := New(), &clock{now: time.Now()}
	u.now = c.time
	u.Read(path)
	if p := u.Problem(); p != nil {
		t.Fatal(p)
	}
	return u, path, c
}

func try(t *testing.T, u *Users, from netip.Prefix, name, password string) error {
	t.Helper()
	_, err := u.Check(t.Context(), from, name, secret.New(password))
	return err
}

func TestPasswordIsRightOrWrong(t *testing.T) {
	t.Parallel()
	u, _, _ := people(t)
	for _, tt := range []struct {
		name, password string
		want           error
	}{
		{"ann", "right", nil}, {"ann", "right", nil}, {"bob", "bob's", nil},
		{"ann", "bob's", ErrWrong}, {"ann", "", ErrWrong}, {"ann", "right ", ErrWrong}, {"Ann", "right", ErrWrong},
		{"eve", "right", ErrWrong}, {"", "right", ErrWrong}, {"", "", ErrWrong},
		{strings.Repeat("a", 300), "right", ErrWrong}, {"ann", strings.Repeat("a", 2000), ErrWrong},
	} {
		if err := try(t, u, home, tt.name, tt.password); !errors.Is(err, tt.want) {
			t.Errorf("%.10q with %.10q: %v, want %v", tt.name, tt.password, err, tt.want)
		}
	}
}

// The time that a response takes must not tell which users exist.
func TestPasswordOfAUserWhoDoesNotExistIsHashedToo(t *testing.T) {
	t.Parallel()
	u, _, _ := people(t)
	if err := bcrypt.CompareHashAndPassword([]byte(u.list.decoy.Reveal()), []byte("x")); !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		t.Errorf("a check of the decoy ends with %v", err)
	}
}

func TestGuessesMustWaitLongerAndLonger(t *testing.T) {
	t.Parallel()
	u, _, c := people(t)
	waits := []time.Duration{0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60}
	for i, want := range waits {
		err := try(t, u, home, "ann", fmt.Sprint("guess", i))
		if w, waits := errors.AsType[*WaitError](err); want == 0 && !errors.Is(err, ErrWrong) || want > 0 && (!waits || w.After != want*time.Second) {
			t.Fatalf("guess %d: %v, want a wait of %d s", i, err, want)
		}
		if want == 0 {
			continue
		}
		// The right password is not tried during the wait: a guess would be as good.
		if err := try(t, u, home, "ann", "right"); err == nil {
			t.Fatalf("guess %d: the right password is accepted during the wait", i)
		}
		c.pass(want * time.Second)
		if err := try(t, u, home, "ann", fmt.Sprint("another guess", i)); !errors.Is(err, ErrWrong) {
			t.Fatalf("after the wait of guess %d: %v", i, err)
		}
	}
	for _, elsewhere := range []netip.Prefix{abroad, netip.MustParsePrefix("198.51.100.8/32")} {
		if err := try(t, u, elsewhere, "ann", "right"); err != nil {
			t.Errorf("the user is locked out at %v: %v", elsewhere, err)
		}
	}
	if err := try(t, u, home, "bob", "bob's"); err != nil {
		t.Errorf("another user at the attacker's address is locked out: %v", err)
	}
	c.pass(longestWait)
	if err := try(t, u, home, "ann", "right"); err != nil {
		t.Errorf("after the wait, with the right password: %v", err)
	}
}

func TestGuessesForManyUsersMustWait(t *testing.T) {
	t.Parallel()
	u, _, _ := people(t)
	for i := range freeTriesInAll {
		// An attacker who has a password of its own cannot clear its record with it.
		if err := try(t, u, home, "bob", "bob's"); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if err := try(t, u, home, fmt.Sprint("user", i), "guess"); !errors.Is(err, ErrWrong) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if _, waits := errors.AsType[*WaitError](try(t, u, home, "one more", "guess")); !waits {
		t.Error("an address may guess without end if it names another user each time")
	}
}

func TestGuessesAtTheSameTimeCount(t *testing.T) {
	t.Parallel()
	u, _, _ := people(t)
	var wait sync.WaitGroup
	var mu sync.Mutex
	checked := 0
	for i := range 100 {
		wait.Go(func() {
			if _, err := u.Check(t.Context(), home, "ann", secret.New(fmt.Sprint("guess", i))); errors.Is(err, ErrWrong) {
				mu.Lock()
				checked++
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if checked > freeTries {
		t.Errorf("%d of 100 simultaneous guesses were checked, want at most %d", checked, freeTries)
	}
}

func TestManyProgramsOfOneUserLogInAtOnce(t *testing.T) {
	t.Parallel()
	u, _, _ := people(t)
	var wait sync.WaitGroup
	for range 200 {
		wait.Go(func() {
			if _, err := u.Check(t.Context(), home, "ann", secret.New("right")); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}

func TestAddressesShareTheChecksThatCanRun(t *testing.T) {
	t.Parallel()
	u, _, _ := people(t)
	for range cap(u.slots) {
		u.slots <- struct{}{} // every check waits
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for i := range maxChecksEach {
		u.mu.Lock()
		_, _, err := u.begin(home, fmt.Sprint("user", i), fmt.Sprint("key", i))
		u.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, waits := errors.AsType[*WaitError](try(t, u, home, "one more", "x")); !waits {
		t.Error("one address takes more than its share of the checks")
	}
	wait.Go(func() {
		if _, err := u.Check(ctx, abroad, "ann", secret.New("right")); err != nil {
			t.Errorf("another address gets none: %v", err)
		}
	})
	for range cap(u.slots) {
		<-u.slots
	}
	wait.Wait()
	cancel()
}

func TestChangesOfTheFile(t *testing.T) {
	t.Parallel()
	u, path, c := people(t)
	ann, err := u.Check(t.Context(), home, "ann", secret.New("right"))
	if err != nil || !u.Current(ann) {
		t.Fatal(err)
	}
	u.Read(path)
	if !u.Current(ann) {
		t.Error("a file that was read again without a change ends logins")
	}
	// As an editor may leave it for a moment.
	write(t, path, "ann:"+hashOf(t, "right")[:20])
	u.Read(path)
	if u.Problem() == nil || !u.Required() || !u.Current(ann) || try(t, u, home, "ann", "right") != nil {
		t.Error("a damaged file ends logins, or is no problem")
	}
	write(t, path, "ann:"+hashOf(t, "new")+"\nbob:"+hashOf(t, "bob's"))
	u.Read(path)
	if u.Problem() != nil || u.Current(ann) || !errors.Is(try(t, u, home, "ann", "right"), ErrWrong) || try(t, u, home, "ann", "new") != nil {
		t.Error("the old password is accepted, or the new one is not")
	}
	write(t, path, "bob:"+hashOf(t, "bob's"))
	u.Read(path)
	c.pass(longestWait)
	if !errors.Is(try(t, u, home, "ann", "new"), ErrWrong) {
		t.Error("a user who was removed is accepted")
	}
	u.Read(path + ".missing")
	if err := try(t, u, home, "bob", "bob's"); !u.Required() || !errors.Is(err, ErrUnreadable) {
		t.Errorf("with a file that does not exist, a user of the one before gets %v", err)
	}
	u.Read("")
	if u.Required() || u.Problem() != nil {
		t.Error("logins are required without a file")
	}
}

func TestTablesAreBounded(t *testing.T) {
	t.Parallel()
	var g guard
	now := time.Now()
	for i := range 3 * maxFailures {
		g.failed(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32), "ann", now)
	}
	if n := len(g.failures); n > maxFailures {
		t.Errorf("%d failures are recorded", n)
	}
	u := New()
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range 3 * maxVerified {
		u.remember(fmt.Sprint(i))
	}
	if n := len(u.verified); n > maxVerified {
		t.Errorf("%d right passwords are remembered", n)
	}
}
