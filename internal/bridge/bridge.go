// Package bridge finds the bridges of this host that have a network of containers or virtual machines
// behind them, and their addresses there, as they come and go.
package bridge

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// maxNetworks bounds the networks that List returns: each gets a listener.
const maxNetworks = 256

// Network is an address of this host in the network behind a bridge.
type Network struct {
	// Interface is the name of the bridge, and Index its number, which another bridge of the same name
	// does not have.
	Interface string
	Index     int

	// Prefix is the address of this host, and how long the part is that all addresses there share.
	Prefix netip.Prefix
}

// Contains reports whether addr is another host's in the network.
func (n Network) Contains(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return addr != n.Prefix.Addr() && n.Prefix.Contains(addr)
}

// drivers are the kernel's drivers of interfaces that have only guests behind them.
var drivers = []string{"bridge", "tun", "veth", "openvswitch"}

// List returns the networks behind the interfaces that patterns name, in the order of their names. A
// pattern is a name, in which "*" stands for any characters. The problems are about interfaces that
// are named and must not be served: those of a machine's own network.
func List(patterns []string) ([]Network, []*problem.Problem, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, nil, fmt.Errorf("listing the network interfaces: %w", err)
	}
	slices.SortFunc(all, func(a, b net.Interface) int { return strings.Compare(a.Name, b.Name) })
	var networks []Network
	var problems []*problem.Problem
	for _, i := range all {
		if !Named(patterns, i.Name) || i.Flags&net.FlagUp == 0 {
			continue
		}
		if driver := driverOf(i); i.Flags&net.FlagLoopback != 0 || !slices.Contains(drivers, driver) {
			problems = append(problems, &problem.Problem{
				Code: "guests-not-a-bridge", Text: fmt.Sprintf("guests.networks: %s is not a bridge (its driver is %q), so its network is not served", i.Name, driver),
				Hint: "remove it from guests.networks; to serve a whole network, see listen in docs/configure.md",
			})
			continue
		}
		for _, prefix := range prefixes(i) {
			networks = append(networks, Network{Interface: i.Name, Index: i.Index, Prefix: prefix})
		}
	}
	if len(networks) > maxNetworks {
		problems = append(problems, &problem.Problem{
			Code: "guests-too-many", Text: fmt.Sprintf("guests.networks names bridges with %d addresses, and %d are served", len(networks), maxNetworks),
			Hint: "name fewer bridges in guests.networks",
		})
		networks = networks[:maxNetworks]
	}
	return networks, problems, nil
}

// Named reports whether one of patterns names an interface.
func Named(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	})
}

// driverOf returns the name of the kernel's driver of an interface, "" if it has none (ethtool(8) -i).
func driverOf(i net.Interface) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, i.Name)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.Driver[:])
}

// prefixes returns the addresses of an interface that guests can use. Link-local ones need a zone,
// which no configuration of an engine can name.
func prefixes(i net.Interface) (list []netip.Prefix) {
	addrs, err := i.Addrs()
	if err != nil {
		return nil // it has just gone
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		if addr := prefix.Addr(); addr.IsGlobalUnicast() && prefix.Bits() < addr.BitLen() {
			list = append(list, prefix)
		}
	}
	return list
}
