package listener

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sidemirror/sidemirror/internal/portowner"
	"github.com/sidemirror/sidemirror/internal/sockdiag"
)

// Limits of the search for the process that has an address: a host has some thousands of
// processes, and an error message is not worth more than a second.
const (
	maxProcesses = 1 << 14
	maxFiles     = 1 << 14
	searchTime   = time.Second
)

// ownerOf returns who has taken addr, as " by nginx (process 123)", or "" if that is unknown:
// only root sees the processes of other users.
func ownerOf(addr netip.AddrPort) string {
	// A socket at one address is enough to take all addresses.
	for _, at := range []netip.AddrPort{addr, Reachable(addr)} {
		s, found, err := sockdiag.ListenerSocket(at)
		if err != nil || !found {
			continue
		}
		return " " + by(s, addr.Port())
	}
	return ""
}

// TakenBy returns which process listens at addr, as "by nginx (process 123)"; "" if none does. Any
// address of its port takes all addresses.
func TakenBy(addr netip.AddrPort) string {
	find := sockdiag.ListenerSocket
	if addr.Addr().IsUnspecified() {
		find = func(addr netip.AddrPort) (sockdiag.Socket, bool, error) { return sockdiag.AtPort(addr.Port()) }
	}
	s, found, err := find(addr)
	if err != nil || !found {
		return ""
	}
	return by(s, addr.Port())
}

// by names the process that has a socket at a port.
func by(s sockdiag.Socket, port uint16) string {
	if pid, name := processWith(s.Inode); pid != "" {
		return fmt.Sprintf("by %s (process %s)", name, pid)
	}
	return fmt.Sprintf("by a process of user %s (as root, see which: ss -ltnp sport = %d)", portowner.Name(s.UID), port)
}

// processWith finds the process that has the socket open.
func processWith(inode uint32) (pid, name string) {
	deadline := time.Now().Add(searchTime)
	want := fmt.Sprintf("socket:[%d]", inode)
	for _, pid := range readNames("/proc", maxProcesses) {
		if _, err := strconv.ParseUint(pid, 10, 32); err != nil {
			continue
		}
		if time.Now().After(deadline) {
			break
		}
		dir := filepath.Join("/proc", pid, "fd")
		for _, fd := range readNames(dir, maxFiles) {
			if target, err := os.Readlink(filepath.Join(dir, fd)); err == nil && target == want {
				comm, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
				return pid, printable(strings.TrimSpace(string(comm)))
			}
		}
	}
	return "", ""
}

func readNames(dir string, most int) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(most) // the names that could be read are searched
	return names
}

// printable replaces characters that a terminal would interpret.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
