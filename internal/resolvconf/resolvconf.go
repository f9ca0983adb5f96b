// Package resolvconf reads which name servers a resolv.conf(5) names.
package resolvconf

import (
	"bufio"
	"bytes"
	"net/netip"
	"strings"
)

// Path is the host's file.
const Path = "/etc/resolv.conf"

const (
	maxSize    = 64 << 10
	maxServers = 3 // MAXNS
)

// LinkLocal returns the link-local name servers of a file that holds data. Services whose unit denies
// link-local addresses cannot ask these.
func LinkLocal(data []byte) []netip.Addr {
	var list []netip.Addr
	lines := bufio.NewScanner(bytes.NewReader(data[:min(len(data), maxSize)]))
	for servers := 0; servers < maxServers && lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		servers++
		if addr, err := netip.ParseAddr(fields[1]); err == nil && addr.IsLinkLocalUnicast() {
			list = append(list, addr)
		}
	}
	return list
}
