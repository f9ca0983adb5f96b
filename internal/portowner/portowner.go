// Package portowner tells whose a TCP port is: who listens at an address, and which ports every user
// can take. Engines trust the process that answers them.
package portowner

import (
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/sidemirror/sidemirror/internal/sockdiag"
)

// Setting is the file in which the kernel has the lowest port that every user can listen at. It is
// about the network namespace of the process that reads it.
const Setting = "/proc/sys/net/ipv4/ip_unprivileged_port_start"

// account is the user that the packages make for the proxy.
const account = "sidemirror"

// FirstUnprivileged returns the lowest port that every user can listen at. If the setting cannot be
// read, as inside a packaged unit, it is the kernel's default.
func FirstUnprivileged(setting string) uint16 {
	const kernelDefault = 1024
	data, err := os.ReadFile(setting)
	if err != nil {
		return kernelDefault
	}
	first, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 16)
	if err != nil {
		return kernelDefault
	}
	return uint16(first)
}

// Hint says how to have a port that only root can open, if users can open those from first on.
func Hint(first uint16) string {
	const usual, byDefault = 305, 1024 // sidemirror's default port, and the kernel's limit
	if first <= usual {
		return fmt.Sprintf("reserve the ports below %d for root, as by default: sysctl net.ipv4.ip_unprivileged_port_start=%d", byDefault, byDefault)
	}
	return fmt.Sprintf("listen at a port below %d, such as the default %d", first, usual)
}

// Owner is who listens at an address.
type Owner struct {
	Found   bool   // a process listens there
	Trusted bool   // it is root's, the proxy's or this process's own user's
	Name    string // of the user, or the user id
}

// Of returns who would get a connection to an address. It fails if that cannot be found out.
func Of(addr netip.AddrPort) (Owner, error) {
	uid, found, err := sockdiag.Listener(addr)
	if err != nil || !found {
		return Owner{}, err
	}
	return Owner{Found: true, Trusted: IsTrusted(uid), Name: Name(uid)}, nil
}

// IsTrusted reports whether a user is root, for whom systemd opens sockets, the proxy's, or this
// process's own.
func IsTrusted(uid uint32) bool {
	proxy, found := Proxy()
	return uid == 0 || uid == uint32(os.Getuid()) || found && uid == proxy
}

// Proxy returns the user that the packages make for the proxy, if this host has it.
func Proxy() (uid uint32, found bool) {
	u, err := user.Lookup(account)
	if err != nil {
		return 0, false
	}
	id, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(id), err == nil
}

// Name returns a user's name in quotes, or the user id if it has none.
func Name(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return strconv.Quote(u.Username)
	}
	return id
}
