// Package users checks the names and passwords of a site's visitors against a file of htpasswd.
//
// A check costs some CPU time on purpose (bcrypt), which the engines of this host need too. So few
// checks run at a time, and a password that was right is not checked again for a while. A visitor
// who tries wrong passwords must wait longer and longer, at its own address and no other.
package users

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/secret"
)

const (
	// verifiedLife is for how long a right password is not checked again.
	verifiedLife = 5 * time.Minute
	maxVerified  = 4096

	// maxChecks and maxChecksEach bound the checks that run or wait, in all and for one address.
	maxChecks     = 64
	maxChecksEach = 16

	// crowded is how long a visitor should wait if there are too many checks.
	crowded = 2 * time.Second

	maxName     = 255 // bytes
	maxPassword = 1024
)

// What [Users.Check] returns for a visitor who is not let in.
var (
	ErrWrong      = errors.New("the user name or the password is wrong")
	ErrUnreadable = errors.New("the file of users cannot be read")
)

// WaitError says that a visitor must wait before the next try.
type WaitError struct{ After time.Duration }

func (e *WaitError) Error() string {
	return fmt.Sprintf("too many wrong passwords came from this address: wait %v", e.After.Round(time.Second))
}

// User is a visitor whose password was right.
type User struct {
	Name string

	// Generation names the password, without revealing it.
	Generation string
}

// Users are the users of a site. It is safe for concurrent use.
type Users struct {
	key   []byte // of the names of passwords
	slots chan struct{}
	now   func() time.Time

	mu       sync.Mutex
	path     string
	list     *list // nil: not known
	problem  *problem.Problem
	verified map[string]time.Time // when a check of a name, a password and its hash succeeded
	checks   map[string]*check    // under way
	each     map[netip.Prefix]int // how many of them
	guard    guard
}

// check is a check that is under way. Equal ones from the same address share it.
type check struct {
	done  chan struct{}
	right bool // once done is closed
}

// New returns Users without a file.
func New() *Users {
	u := &Users{
		key:      make([]byte, 32),
		slots:    make(chan struct{}, max(1, runtime.NumCPU()/2)),
		now:      time.Now,
		verified: make(map[string]time.Time),
		checks:   make(map[string]*check),
		each:     make(map[netip.Prefix]int),
	}
	_, _ = rand.Read(u.key) // never fails: crypto/rand
	return u
}

// Read reads the file at path, or forgets the users if path is empty. If the file cannot be used, the
// users that it had before remain.
func (u *Users) Read(path string) {
	var next *list
	var wrong *problem.Problem
	if path != "" {
		next, wrong = readFile(path)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if next != nil || path != u.path {
		u.list = next
	}
	u.path, u.problem = path, wrong
}

// Required reports whether visitors must log in.
func (u *Users) Required() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.path != ""
}

// Problem returns why the file cannot be used; nil if it can.
func (u *Users) Problem() *problem.Problem {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.problem
}

// Current reports whether user still exists, with the same password.
func (u *Users) Current(user User) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.list == nil {
		return false
	}
	hash, ok := u.list.hashes[user.Name]
	return ok && hmac.Equal([]byte(user.Generation), []byte(u.generation(hash)))
}

// Check returns the user of that name if the password is right. from are the addresses that count as
// the visitor's own.
func (u *Users) Check(ctx context.Context, from netip.Prefix, name string, password secret.Secret) (User, error) {
	if name == "" || len(name) > maxName || len(password.Reveal()) > maxPassword {
		return User{}, ErrWrong
	}
	u.mu.Lock()
	if u.list == nil {
		u.mu.Unlock()
		return User{}, ErrUnreadable
	}
	hash, known := u.list.hashes[name]
	if !known {
		// It takes as long as for a user who exists.
		hash = u.list.decoy
	}
	user := User{name, u.generation(hash)}
	key := u.name(name, password.Reveal(), hash.Reveal())
	c, right, err := u.begin(from, name, key)
	if c == nil {
		u.mu.Unlock()
		if err == nil && !right {
			err = ErrWrong
		}
		return user, err
	}
	if c.done == nil { // a new one
		c.done = make(chan struct{})
		go u.run(c, from, name, key, hash, password, known)
	}
	u.mu.Unlock()
	select {
	case <-ctx.Done():
		return User{}, ctx.Err()
	case <-c.done:
	}
	if !c.right {
		return User{}, ErrWrong
	}
	return user, nil
}

// begin returns the check to wait for, whose done is nil if it must be started first. If no check is
// needed it returns nil, and whether the password is right. u.mu must be locked.
func (u *Users) begin(from netip.Prefix, name, key string) (c *check, right bool, err error) {
	now := u.now()
	if c := u.checks[flight(from, key)]; c != nil {
		return c, false, nil
	}
	if wait := u.guard.wait(from, name, now); wait > 0 {
		return nil, false, &WaitError{wait}
	}
	if now.Before(u.verified[key]) {
		return nil, true, nil
	}
	if len(u.checks) >= maxChecks || u.each[from] >= maxChecksEach {
		return nil, false, &WaitError{crowded}
	}
	u.guard.failed(from, name, now) // until it turns out to be right: several at once must count
	c = &check{}
	u.checks[flight(from, key)] = c
	u.each[from]++
	return c, false, nil
}

// flight is the name of a check that equal ones share.
func flight(from netip.Prefix, key string) string { return from.String() + " " + key }

// run checks a password and records the outcome.
func (u *Users) run(c *check, from netip.Prefix, name, key string, hash, password secret.Secret, known bool) {
	u.slots <- struct{}{}
	right := bcrypt.CompareHashAndPassword([]byte(hash.Reveal()), []byte(password.Reveal())) == nil && known
	<-u.slots
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.checks, flight(from, key))
	if u.each[from]--; u.each[from] == 0 {
		delete(u.each, from)
	}
	if right {
		u.guard.succeeded(from, name)
		u.remember(key)
	}
	c.right = right
	close(c.done)
}

// remember records that the check of that name has succeeded. u.mu must be locked.
func (u *Users) remember(key string) {
	now := u.now()
	makeRoom(u.verified, maxVerified, func(until time.Time) bool { return !now.Before(until) })
	u.verified[key] = now.Add(verifiedLife)
}

// generation returns the name of a user's password.
func (u *Users) generation(hash secret.Secret) string { return u.name(hash.Reveal())[:16] }

// name returns a name for secrets that reveals nothing of them.
func (u *Users) name(secrets ...string) string {
	mac := hmac.New(sha256.New, u.key)
	for _, s := range secrets {
		fmt.Fprintf(mac, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// makeRoom leaves m as it is if it has fewer than most entries. Otherwise it deletes those that have
// ended, and more until a quarter is free: it must not run for each new entry.
func makeRoom[K comparable, V any](m map[K]V, most int, ended func(V) bool) {
	if len(m) < most {
		return
	}
	for k, v := range m {
		if ended(v) {
			delete(m, k)
		}
	}
	for k := range m {
		if len(m) < most-most/4 {
			return
		}
		delete(m, k)
	}
}
