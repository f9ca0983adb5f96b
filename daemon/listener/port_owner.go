package listener

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Limits of the search for the owner of an address: a host has some thousands of processes
// and sockets, and an error message is not worth more than a second.
const (
	maxSocketLines = 1 << 16
	maxProcesses   = 1 << 14
	maxFiles       = 1 << 14
	searchTime     = time.Second
)

// ownerOf returns who has taken addr, as " by nginx (process 123)", or "" if that is unknown:
// only root sees the processes of other users.
func ownerOf(addr netip.AddrPort) string {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		s, found := listeningSocket(f, addr)
		_ = f.Close()
		if !found {
			continue
		}
		if pid, name := processWith(s.inode); pid != "" {
			return fmt.Sprintf(" by %s (process %s)", name, pid)
		}
		return fmt.Sprintf(" by a process of user %d (as root, see which: ss -ltnp sport = %d)", s.uid, addr.Port())
	}
	return ""
}

type socket struct {
	inode string
	uid   uint32
}

// listeningSocket finds in a table like /proc/net/tcp (proc_net_tcp.txt in the kernel's
// documentation) the socket that has taken addr: one that listens on its port, at the same
// address or at all addresses.
func listeningSocket(table io.Reader, addr netip.AddrPort) (socket, bool) {
	const listening = "0A"
	lines := bufio.NewScanner(table)
	for n := 0; n < maxSocketLines && lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != listening {
			continue
		}
		at, ok := parseProcAddr(fields[1])
		if !ok || at.Port() != addr.Port() {
			continue
		}
		uid, err := strconv.ParseUint(fields[7], 10, 32)
		if err == nil && (at.Addr() == addr.Addr() || at.Addr().IsUnspecified() || addr.Addr().IsUnspecified()) {
			return socket{inode: fields[9], uid: uint32(uid)}, true
		}
	}
	return socket{}, false
}

// parseProcAddr reads "0100007F:0131": words of 32 bits in the host's order, which is
// little-endian on the supported platforms, and the port.
func parseProcAddr(text string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	p, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), ok
}

// processWith finds the process that has the socket open.
func processWith(inode string) (pid, name string) {
	deadline := time.Now().Add(searchTime)
	want := "socket:[" + inode + "]"
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
