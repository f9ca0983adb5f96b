package upstream

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// blockedError says that an address may not be connected to.
type blockedError struct{ what string }

func (e *blockedError) Error() string {
	return "it is at " + e.what + ", where a registry must not lead sidemirror"
}

// class is a part of the address space. A connection that may go to one of them may go to those
// before it too.
type class int

const (
	public class = iota
	private
	loopback
	forbidden // link-local, metadata, multicast, reserved: never
)

// metadata are the addresses at which clouds serve metadata and credentials to the machine
// that asks, as their documentation has them. Those that are not listed are link-local:
// 169.254.170.2 and 169.254.170.23 of AWS, 169.254.0.23 of Tencent, 169.254.42.42 of
// Scaleway, fe80::a9fe:a9fe of OpenStack and DigitalOcean.
var metadata = prefixes(
	"169.254.169.254/32",     // every cloud
	"fd00:ec2::/32",          // AWS: IMDS (::254), EKS Pod Identity (::23) and its other services
	"fd20:ce::254/128",       // Google Cloud
	"168.63.129.16/32",       // Azure: WireServer
	"192.0.0.192/32",         // Oracle Cloud, the older kind
	"fd00:c1::a9fe:a9fe/128", // Oracle Cloud
	"100.100.100.200/32",     // Alibaba Cloud
	"fd00:42::42/128",        // Scaleway
	"fd00:a9fe:a9fe::1/128",  // Akamai (Linode)
)

// metadataNames are the host names of such addresses. A forward proxy would resolve them
// where sidemirror does not see the address.
var metadataNames = []string{
	"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal",
	"metadata.tencentyun.com", "metadata.platformequinix.com", "metadata.packet.net", "api.metadata.cloud.ibm.com",
}

var (
	neverAsked = prefixes(
		"0.0.0.0/8",    // this network, RFC 1122
		"192.0.0.0/24", // protocol assignments, RFC 6890
		"240.0.0.0/4",  // reserved, and broadcast, RFC 1112
		"100::/64",     // discard only, RFC 6666
	)
	privateSpace = prefixes(
		"100.64.0.0/10",  // shared by customers of a provider, RFC 6598
		"198.18.0.0/15",  // benchmarks, RFC 2544
		"64:ff9b:1::/48", // a site's own NAT64, RFC 8215
		"fec0::/10",      // site-local, RFC 3879
	)
)

// embeddings are the IPv6 prefixes with an IPv4 address inside, and at which byte.
var embeddings = []struct {
	prefix netip.Prefix
	at     int
	invert bool
}{
	{netip.MustParsePrefix("::/96"), 12, false},           // IPv4-compatible, RFC 4291
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12, false}, // IPv4-translated, RFC 2765
	{netip.MustParsePrefix("64:ff9b::/96"), 12, false},    // NAT64, RFC 6052
	{netip.MustParsePrefix("2002::/16"), 2, false},        // 6to4, RFC 3056
	{netip.MustParsePrefix("2001::/32"), 12, true},        // Teredo, RFC 4380
}

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		all[i] = netip.MustParsePrefix(t)
	}
	return all
}

func within(a netip.Addr, all []netip.Prefix) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(a) })
}

// classify says in which part of the address space a is. An IPv4 address inside an IPv6
// one counts as what it leads to.
func classify(a netip.Addr) class {
	a = a.Unmap().WithZone("")
	if a == netip.IPv6Loopback() {
		return loopback
	}
	if b, ok := embedded(a); ok {
		return classify(b)
	}
	switch {
	case a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(), within(a, metadata), within(a, neverAsked), translatesToMetadata(a):
		return forbidden
	case a.IsLoopback():
		return loopback
	case a.IsPrivate(), within(a, privateSpace):
		return private
	}
	return public
}

// embedded returns the IPv4 address that a leads to, if a is of a kind that holds one.
func embedded(a netip.Addr) (netip.Addr, bool) {
	if a.Is4() {
		return netip.Addr{}, false
	}
	b := a.As16()
	for _, e := range embeddings {
		if !e.prefix.Contains(a) {
			continue
		}
		v4 := [4]byte(b[e.at : e.at+4])
		if e.invert {
			for i := range v4 {
				v4[i] ^= 0xff
			}
		}
		return netip.AddrFrom4(v4), true
	}
	// ISATAP, RFC 5214: the interface identifier is 0000:5efe or 0200:5efe and the address.
	if (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		return netip.AddrFrom4([4]byte(b[12:16])), true
	}
	return netip.Addr{}, false
}

// translatesToMetadata reports whether a NAT64 of the site may translate a to a metadata
// address. Its prefix is not known, so that each position counts at which RFC 6052 puts the
// IPv4 address.
func translatesToMetadata(a netip.Addr) bool {
	if a.Is4() {
		return false
	}
	b := a.As16()
	for _, v4 := range [][4]byte{
		{b[12], b[13], b[14], b[15]}, // /96
		{b[9], b[10], b[11], b[12]},  // /64
		{b[7], b[9], b[10], b[11]},   // /56
		{b[6], b[7], b[9], b[10]},    // /48
		{b[5], b[6], b[7], b[9]},     // /40
		{b[4], b[5], b[6], b[7]},     // /32
	} {
		if within(netip.AddrFrom4(v4), metadata) {
			return true
		}
	}
	return false
}

// checkAddress refuses an address of a class beyond furthest, and a forbidden one always.
func checkAddress(a netip.Addr, furthest class) error {
	switch c := classify(a); {
	case c == forbidden:
		return &blockedError{"a link-local, metadata or reserved address"}
	case c <= furthest:
		return nil
	case furthest == private:
		return &blockedError{"a loopback address"}
	}
	return &blockedError{"a loopback or private address"}
}

// checkHost refuses the host of a redirect by its text alone: an address that would be
// refused at the moment of connecting, which a forward proxy would hide; the host name of a
// metadata server; and the shorthands of addresses ("127.1", "2130706433", "0x7f000001")
// that other resolvers know.
func checkHost(host string, furthest class) error {
	if a, err := netip.ParseAddr(host); err == nil {
		return checkAddress(a, furthest)
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if isLocalhost(name) && furthest < loopback {
		return &blockedError{"a loopback address"}
	}
	if slices.Contains(metadataNames, name) {
		return &blockedError{"a metadata server"}
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); (ok && strings.Trim(hex, "0123456789abcdef") == "") || strings.Trim(last, "0123456789") == "" {
		return &blockedError{fmt.Sprintf("%q, which is not a host name", host)}
	}
	return nil
}

// isLocalhost reports whether a name means this host wherever it is looked up (RFC 6761, 6.3).
func isLocalhost(name string) bool {
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}
