// Package network gives a test process a network of its own: loopback with the usual
// addresses, and addresses that no engine takes for loopback.
//
// dockerd treats every registry whose name resolves to a loopback address as insecure.
// A registry that stands for one on the internet therefore needs another address, and
// tests that run at the same time must not compete for its port 443.
package network

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// V4 and V6 are the networks, of RFC 5737 and RFC 3849, whose addresses this process can
// listen on after [Isolate].
const (
	V4 = "198.51.100.0/24"
	V6 = "2001:db8::/64"
)

// isolated is set in the environment of a process that has its own network.
const isolated = "SIDEMIRROR_TEST_NETWORK"

// An address with a prefix makes the whole IPv4 network local on lo. For IPv6 this takes
// a route, and leave to listen at an address that no interface has.
const setup = `echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind &&
ip link set lo up &&
ip address add 198.51.100.1/24 dev lo &&
ip -6 address add 2001:db8::1/64 dev lo nodad &&
ip -6 route add local 2001:db8::/64 dev lo &&
exec "$0" "$@"`

// Isolate starts the test program again in a network of its own, in the same process, and
// does not return. In that network it does nothing. Call it first in TestMain. prepare runs
// before, because the new network cannot reach the internet. A process that is not root
// stays where it is.
func Isolate(prepare func() error) error {
	if os.Geteuid() != 0 || os.Getenv(isolated) != "" {
		return nil
	}
	if err := prepare(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return fmt.Errorf("making a network for the tests: %w", err)
	}
	line := append([]string{"unshare", "--net", "sh", "-c", setup, self}, os.Args[1:]...)
	err = syscall.Exec(unshare, line, append(os.Environ(), isolated+"=own"))
	return fmt.Errorf("making a network for the tests: %w", err)
}

// Address4 returns an address of [V4] that no listener of this test process had before,
// with the given port.
func Address4(t testing.TB, port int) string {
	t.Helper()
	return fmt.Sprintf("198.51.100.%d:%d", next(t), port)
}

// Address6 is Address4 for [V6].
func Address6(t testing.TB, port int) string {
	t.Helper()
	return fmt.Sprintf("[2001:db8::%x]:%d", next(t), port)
}

var used [256]bool

func next(t testing.TB) int {
	t.Helper()
	if os.Getenv(isolated) == "" {
		t.Fatal(errors.New("this test needs network.Isolate in its TestMain, and root"))
	}
	for range 10 * len(used) {
		if n := 2 + rand.IntN(252); !used[n] {
			used[n] = true
			return n
		}
	}
	t.Fatal("all addresses of the tests' network are in use")
	return 0
}
