package program

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// metadata is where clouds hand out the tokens of a machine, and link-local like all of their servers
// for that.
var metadata = netip.MustParseAddrPort("169.254.169.254:80")

// restrictions are directives of systemd units that programs may not get along with, and how to find
// out whether this process, and so every program that it runs, is subject to them.
var restrictions = []struct {
	directive string
	inForce   func() bool
}{
	{"IPAddressDeny= (a metadata server)", func() bool { return errors.Is(sendNothing(metadata), unix.EPERM) }},
	{"MemoryDenyWriteExecute= (Java, .NET, Node.js)", deniesWriteExecute},
	{"ProcSubset= (parts of /proc)", func() bool { return isMissing("/proc/sys/kernel") && !isMissing("/proc/self") }},
}

// SandboxHint returns the end of a hint about a program that failed, which begins with how to run it by
// hand: the directives that may be the reason. It is empty if this process is in no sandbox.
func SandboxHint() string {
	var list []string
	for _, r := range restrictions {
		if r.inForce() {
			list = append(list, r.directive)
		}
	}
	if len(list) == 0 {
		return ""
	}
	return "; if it works by hand, a directive of sidemirror.service is in its way: " + strings.Join(list, ", ") +
		"; see docs/security.md"
}

// sendNothing sends an empty datagram, which a firewall of the unit's refuses with EPERM.
func sendNothing(to netip.AddrPort) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(nil)
	return err
}

func deniesWriteExecute() bool {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		_ = unix.Munmap(page)
	}
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
}

func isMissing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}
