package sockdiag

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// maxTable bounds what is read of one table of sockets: 150 bytes each of 400,000. The kernel lists
// the listeners first.
const maxTable = 64 << 20

// Listener returns the user who owns the TCP socket that a connection to addr would reach, in the
// network namespace of this host's first process, which is the engines' own. found is false if
// no socket listens there.
//
// A process in that namespace asks sock_diag. One in another, as a unit with PrivateNetwork= is,
// reads /proc/1/net/tcp and tcp6, which show the first process's namespace to every reader. So does
// a process that may not open a netlink socket.
func Listener(addr netip.AddrPort) (uid uint32, found bool, err error) {
	s, found, err := ListenerSocket(addr)
	return s.UID, found, err
}

// ListenerSocket is Listener for the socket itself, whose UID, Inode and State it returns.
func ListenerSocket(addr netip.AddrPort) (s Socket, found bool, err error) {
	addr = netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port())
	if !addr.Addr().IsValid() || addr.Port() == 0 {
		return Socket{}, false, fmt.Errorf("looking for the listener at %v: not an address with a port", addr)
	}
	if elsewhere() {
		s, found, err = inTables("/proc/1/net", addr)
	} else {
		s, found, err = here(addr)
	}
	if err != nil {
		err = fmt.Errorf("looking for the listener at %v: %w", addr, err)
	}
	return s, found, err
}

// elsewhere reports whether this process is in another network namespace than the first one. The
// kernel makes a folder /proc/PID/net for each namespace, so the same file is the same namespace.
// Comparing /proc/PID/ns/net would need CAP_SYS_PTRACE.
func elsewhere() bool {
	first, err := os.Stat("/proc/1/net/tcp")
	if err != nil {
		return false
	}
	own, err := os.Stat("/proc/self/net/tcp")
	return err == nil && !os.SameFile(first, own)
}

// here looks in this process's own network namespace.
func here(addr netip.AddrPort) (s Socket, found bool, err error) {
	s, _, err = ask(flow{src: addr, dst: netip.AddrPortFrom(unspecified(addr.Addr()), 0)})
	if err == nil {
		return s, true, nil
	}
	// The kernel reports a missing module tcp_diag in the words for a missing socket.
	s, found, tableErr := inTables("/proc/self/net", addr)
	if errors.Is(tableErr, fs.ErrNotExist) && errors.Is(err, ErrNotFound) {
		return Socket{}, false, nil // no /proc
	}
	if tableErr != nil {
		return Socket{}, false, errors.Join(err, tableErr)
	}
	return s, found, nil
}

func unspecified(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// AtPort returns a socket that listens at a port, at any address, in this process's network namespace.
// One at all addresses comes first.
func AtPort(port uint16) (s Socket, found bool, err error) {
	s, found, err = search("/proc/self/net", func(at netip.AddrPort) int {
		switch {
		case at.Port() != port:
			return 0
		case at.Addr().IsUnspecified():
			return 2
		}
		return 1
	})
	if err != nil {
		err = fmt.Errorf("looking for a listener at port %d: %w", port, err)
	}
	return s, found, err
}

// inTables looks for the listener in the files tcp and tcp6 of a folder. Of several it prefers the
// one at addr itself, then the one at all addresses of addr's family. An IPv6 socket at all
// addresses takes IPv4 connections too, unless it has IPV6_V6ONLY, which the table does not tell.
func inTables(folder string, addr netip.AddrPort) (s Socket, found bool, err error) {
	return search(folder, func(at netip.AddrPort) int { return match(at, addr) })
}

// search returns the listener in the files tcp and tcp6 of a folder whose address fits best; one that
// does not fit has 0.
func search(folder string, fit func(at netip.AddrPort) int) (s Socket, found bool, err error) {
	best := 0
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open(folder + "/" + table)
		if errors.Is(err, fs.ErrNotExist) && table == "tcp6" {
			continue // a kernel without IPv6
		} else if err != nil {
			return Socket{}, false, err
		}
		err = eachListener(f, func(at netip.AddrPort, listener Socket) {
			if m := fit(at); m > best {
				best, s = m, listener
			}
		})
		_ = f.Close()
		if err != nil {
			return Socket{}, false, fmt.Errorf("reading %s/%s: %w", folder, table, err)
		}
	}
	return s, best > 0, nil
}

// match reports how well a listener at the address at fits connections to addr; 0 if it gets none.
func match(at, addr netip.AddrPort) int {
	switch {
	case at.Port() != addr.Port():
		return 0
	case at.Addr().Unmap() == addr.Addr():
		return 3
	case at.Addr() == unspecified(addr.Addr()):
		return 2
	case addr.Addr().Is4() && at.Addr() == netip.IPv6Unspecified():
		return 1
	}
	return 0
}

// eachListener calls f for each listening socket in a table as proc_pid_net(5) describes it.
func eachListener(r io.Reader, f func(at netip.AddrPort, s Socket)) error {
	limited := &io.LimitedReader{R: r, N: maxTable}
	scanner := bufio.NewScanner(limited)
	scanner.Scan() // the heading
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 10 {
			return fmt.Errorf("a line of %d fields", len(fields))
		}
		if fields[3] != "0A" { // TCP_LISTEN
			continue
		}
		at, err := parseAddress(fields[1])
		if err != nil {
			return err
		}
		uid, err := strconv.ParseUint(fields[7], 10, 32)
		if err != nil {
			return fmt.Errorf("the user %q: %w", fields[7], err)
		}
		inode, err := strconv.ParseUint(fields[9], 10, 32)
		if err != nil {
			return fmt.Errorf("the inode %q: %w", fields[9], err)
		}
		f(at, Socket{UID: uint32(uid), Inode: uint32(inode), State: tcpListen})
	}
	if limited.N <= 0 {
		return fmt.Errorf("longer than %d MiB", maxTable>>20)
	}
	return scanner.Err()
}

// parseAddress reads "0100007F:0131": 32-bit words as the kernel has them in memory, each printed as
// a number, and the port.
func parseAddress(text string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(text, ":")
	words, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("the address %q: %w", text, err)
	}
	for i := 0; i+4 <= len(words); i += 4 {
		binary.NativeEndian.PutUint32(words[i:], binary.BigEndian.Uint32(words[i:]))
	}
	addr, ok := netip.AddrFromSlice(words)
	number, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("the address %q is not one", text)
	}
	return netip.AddrPortFrom(addr, uint16(number)), nil
}

// Listens reports whether a socket listens at addr in this process's network namespace, also one that is
// bound to a network interface and that connections of this host do not reach.
func Listens(addr netip.AddrPort) (bool, error) {
	_, found, err := inTables("/proc/self/net", addr)
	return found, err
}
