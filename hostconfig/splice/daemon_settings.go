package splice

import (
	"encoding/json"
	"net"
	"net/netip"
	"strings"
)

// setting is one key of daemon.json.
type setting struct {
	since, until int // Docker's major versions that know the key; 0 for no limit
	hidden       bool
	value        func(Version) any // what its value is decoded into; nil if dockerd ignores it
}

// settings are the keys that dockerd 20.10 to 29 knows: the fields of moby's daemon/config.Config,
// and the names of flags, whose values dockerd ignores in this file. A key outside them stops dockerd
// at its next start. Checked against dockerd 20.10.24, 26.1.5, 28.5.2 and 29.7.2, and read in the
// sources of 23, 24, 25 and 27.
var settings = make(map[string]setting)

// newestMajor and newestMinor are the newest Docker whose keys are known here. A newer one may know
// others.
const newestMajor, newestMinor = 29, 7

func init() {
	for _, group := range []struct {
		value func(Version) any
		names string
	}{
		{zero[bool], `allow-direct-routing cri-containerd debug experimental icc init ip-forward ip-forward-no-drop
			ip-masq ip6tables iptables ipv6 live-restore no-new-privileges raw-logs rootless selinux-enabled tls
			tlsverify userland-proxy`},
		{zero[int64], `cpu-rt-period cpu-rt-runtime default-stop-timeout max-concurrent-downloads
			max-concurrent-uploads max-download-attempts mtu network-control-plane-mtu network-diagnostic-port
			oom-score-adjust shutdown-timeout`},
		{zero[string], `api-cors-header apparmor-profile bip bip6 bridge bridge-accept-fwmark cgroup-parent
			cluster-advertise cluster-store containerd containerd-namespace data-root default-cgroupns-mode
			default-ipc-mode default-runtime exec-root firewall-backend fixed-cidr fixed-cidr-v6
			graph group init-path log-driver log-format log-level metrics-addr min-api-version pidfile
			seccomp-profile storage-driver swarm-default-advertise-addr tlscacert tlscert tlskey
			userland-proxy-path userns-remap`},
		{zero[[]string], `authorization-plugins cdi-spec-dirs dns-opts dns-search exec-opts extension-dirs hosts
			insecure-registries labels node-generic-resources registry-mirrors storage-opts`},
		{zero[map[string]string], `cluster-store-opts log-opts`},
		{zero[map[string]bool], `features`},
		{zero[map[string]map[string]string], `default-network-opts`},
		{zero[net.IP], `default-gateway default-gateway-v6 host-gateway-ip ip`},
		{zero[[]netip.Addr], `host-gateway-ips`},
		{addresses, `dns`},
		{oldKeyPath, `deprecated-key-path`},
		{zero[memorySize], `default-shm-size`},
		{addressPools, `default-address-pools`},
		{zero[map[string]*ulimit], `default-ulimits`},
		{zero[map[string]runtime], `runtimes`},
		{zero[builder], `builder`},
		{zero[map[string]any], `nri-opts extension-config`},
		{nil, `add-runtime allow-nondistributable-artifacts authorization-plugin cdi-spec-dir cluster-store-opt
			config-file containerd-plugins-namespace default-address-pool default-network-opt default-ulimit dns-opt
			exec-opt extension-dir feature help host http-proxy https-proxy insecure-registry label log-opt no-proxy
			node-generic-resource registry-mirror restart storage-opt validate version`},
	} {
		for _, name := range strings.Fields(group.names) {
			settings[name] = setting{value: group.value}
		}
	}
	limit(0, 23, `cluster-advertise cluster-store cluster-store-opt cluster-store-opts graph`)
	limit(0, 25, `oom-score-adjust`)
	limit(0, 28, `api-cors-header`)
	limit(23, 0, `http-proxy https-proxy no-proxy validate`)
	limit(24, 0, `default-network-opt default-network-opts`)
	limit(25, 0, `cdi-spec-dir cdi-spec-dirs log-format`)
	limit(27, 0, `feature`)
	limit(28, 0, `allow-direct-routing bip6 host-gateway-ips ip-forward-no-drop`)
	limit(29, 0, `apparmor-profile bridge-accept-fwmark default-stop-timeout extension-config extension-dir extension-dirs
		firewall-backend min-api-version nri-opts`)
	// Fields without a flag: dockerd refuses the key unless its value is an object, which it decodes.
	for _, name := range []string{"containerd-plugin-namespace", "default-init", "resolv-conf"} {
		settings[name] = setting{hidden: true, value: zero[string]}
	}
	for _, name := range []string{"swarm-raft-election-tick", "swarm-raft-heartbeat-tick"} {
		settings[name] = setting{hidden: true, value: zero[uint32]}
	}
	settings["proxies"] = setting{since: 23, hidden: true, value: zero[proxies]}
}

func limit(since, until int, names string) {
	for _, name := range strings.Fields(names) {
		s := settings[name]
		s.since, s.until = since, until
		settings[name] = s
	}
}

// in reports whether dockerd v has the setting.
func (s setting) in(v Version) bool {
	return v.unknown() || v.Major >= s.since && (s.until == 0 || v.Major <= s.until)
}

// known reports whether dockerd v accepts key.
func known(key string, v Version) bool {
	s, ok := settings[key]
	return ok && !s.hidden && s.in(v) || v.atLeast(newestMajor, newestMinor+1)
}

// flat reports whether the members of an object under key are the value's own. Those of any other
// object count as keys of the file (moby, daemon/config, configValuesSet), so that dockerd accepts an
// unknown key whose value is an empty object.
func flat(key string, v Version) bool {
	switch key {
	case "builder", "cluster-store-opts", "default-ulimits", "features", "log-opts", "runtimes":
		return true
	case "default-network-opts", "extension-config", "nri-opts":
		return settings[key].in(v)
	}
	return false
}

func zero[T any](Version) any { return new(T) }

// addresses are strings up to 24, which dockerd checks later.
func addresses(v Version) any {
	switch {
	case v.before(25, 0):
		return new([]string)
	case v.before(29, 0), v.unknown():
		return new([]net.IP)
	}
	return new([]netip.Addr)
}

// oldKeyPath is a key that dockerd 24 and later ignores.
func oldKeyPath(v Version) any {
	if v.before(24, 0) {
		return new(string)
	}
	return new(any)
}

func addressPools(v Version) any {
	if v.atLeast(28, 0) {
		return new([]struct {
			Base netip.Prefix
			Size int
		})
	}
	return new([]struct {
		Base string
		Size int
	})
}

type ulimit struct {
	Name       string
	Hard, Soft int64
}

type runtime struct {
	Path    string         `json:"path"`
	Args    []string       `json:"runtimeArgs"`
	Type    string         `json:"runtimeType"`
	Options map[string]any `json:"options"`
}

type builder struct {
	GC struct {
		Enabled              bool
		DefaultKeepStorage   string
		DefaultReservedSpace string
		DefaultMaxUsedSpace  string
		DefaultMinFreeSpace  string
		Policy               []struct {
			All           bool
			Filter        json.RawMessage
			KeepStorage   string
			ReservedSpace string
			MaxUsedSpace  string
			MinFreeSpace  string
		}
	}
	Entitlements struct {
		NetworkHost      *bool `json:"network-host"`
		SecurityInsecure *bool `json:"security-insecure"`
		Device           *bool `json:"device"`
	}
}

type proxies struct {
	HTTP    string `json:"http-proxy"`
	HTTPS   string `json:"https-proxy"`
	NoProxy string `json:"no-proxy"`
}
