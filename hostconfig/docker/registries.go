package docker

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/certsd"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// hubHost is the host that dockerd asks for what is on Docker Hub. Only by that name, and not as
// docker.io, can Docker Hub be insecure (moby, daemon/pkg/registry, loadInsecureRegistries).
const hubHost = "registry-1.docker.io"

// trust is what dockerd's insecure-registries say. Such registries may have any certificate, or none.
type trust struct {
	hosts    []string       // "host" or "host:port", in that very spelling
	networks []netip.Prefix // without the loopback ones, which are implied
	lookup   func(ctx context.Context, name string) ([]netip.Addr, error)
	names    map[string][]netip.Addr // of /etc/hosts
}

// lookupLimit is for all names of one plan.
const lookupLimit = 5 * time.Second

// newTrust reads a list as dockerd does, which strips http:// and https:// from it.
func newTrust(h *engine.Host, list []string) trust {
	t := trust{names: hostTable(h)}
	if h.Running != nil {
		t.lookup = h.Running.Lookup
	}
	for _, item := range list {
		if scheme, host, ok := strings.Cut(item, "://"); ok && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")) {
			item = host
		}
		if network, err := netip.ParsePrefix(item); err == nil {
			t.networks = append(t.networks, network.Masked())
		} else {
			t.hosts = append(t.hosts, item)
		}
	}
	return t
}

// verdict is what is known about a registry.
type verdict int

const (
	secure verdict = iota
	insecure
	unknown // its name cannot be resolved from here
)

// of judges the host of a registry or a mirror: "host" or "host:port".
func (t trust) of(ctx context.Context, registry string) verdict {
	if registry == hub {
		registry = hubHost
	}
	if slices.Contains(t.hosts, registry) {
		return insecure
	}
	host, _, err := net.SplitHostPort(registry)
	if err != nil {
		host = registry
	}
	host = strings.Trim(host, "[]")
	if addr, err := netip.ParseAddr(host); err == nil {
		return t.ofAddrs(addr)
	}
	if host == "localhost" {
		return insecure
	}
	if addrs, ok := t.names[strings.ToLower(host)]; ok {
		return t.ofAddrs(addrs...)
	}
	if len(t.networks) == 0 {
		return secure
	}
	if t.lookup == nil {
		return unknown
	}
	addrs, err := t.lookup(ctx, host)
	if err != nil {
		return unknown
	}
	return t.ofAddrs(addrs...)
}

func (t trust) ofAddrs(addrs ...netip.Addr) verdict {
	for _, addr := range addrs {
		addr = addr.Unmap().WithZone("")
		if addr.IsLoopback() || slices.ContainsFunc(t.networks, func(n netip.Prefix) bool { return n.Contains(addr) }) {
			return insecure
		}
	}
	return secure
}

// overridden returns an insecure registry, or a network of them, that a hosts.toml for all registries
// would override; "" if there is none. One at localhost or at a loopback address stays as it is. A
// network counts even if it is a loopback one: a host name can lead there.
func (t trust) overridden() string {
	for _, host := range t.hosts {
		if !splice.IsLoopback("http://" + host) {
			return host
		}
	}
	for _, network := range t.networks {
		return network.String()
	}
	return ""
}

// hostTable reads the host's /etc/hosts, which every process of the host sees alike: the watching
// service, which has no network, too.
func hostTable(h *engine.Host) map[string][]netip.Addr {
	f, err := h.Tree.Read("/etc/hosts")
	if err != nil {
		return nil
	}
	table := make(map[string][]netip.Addr)
	for line := range strings.Lines(string(f.Data)) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(words[0])
		if err != nil {
			continue
		}
		for _, name := range words[1:] {
			name = strings.ToLower(name)
			table[name] = append(table[name], addr)
		}
	}
	return table
}

// carried returns the user's mirrors that a hosts.toml for docker.io has to name, since it overrides
// them. Each keeps the TLS settings that dockerd applies to it.
func (d *docker) carried(ctx context.Context, t trust, hosts certsd.Folder, ours string) ([]splice.Mirror, error) {
	// dockerd gives what is in docker.io's folder to the mirrors too (moby, daemon/hosts.go), the
	// graph driver what is in the mirror's own.
	hubCA, hubClients, err := certsd.Certificates(d.Tree, hosts.Registry(hub))
	if err != nil {
		return nil, err
	}
	before := d.verdicts(hosts.File(hub))
	var list []splice.Mirror
	for _, text := range d.settings.Mirrors {
		u, err := url.Parse(text)
		if text = strings.TrimSuffix(text, "/"); err != nil || u.Host == "" || u.User != nil || splice.SameURL(text, ours) {
			continue
		}
		m := splice.Mirror{URL: text, CA: slices.Clone(hubCA), Clients: slices.Clone(hubClients)}
		folder := hosts.Registry(u.Host)
		ca, clients, err := certsd.Certificates(d.Tree, folder)
		if err != nil {
			return nil, err
		}
		for _, name := range ca {
			m.CA = append(m.CA, path.Join(folder, name))
		}
		for _, pair := range clients {
			m.Clients = append(m.Clients, absolute(folder, pair))
		}
		verdict := t.of(ctx, u.Host)
		if known, ok := before[u.Host]; ok && verdict == unknown {
			verdict = known
		}
		switch verdict {
		case unknown:
			return nil, &problem.Problem{
				Code: "docker-mirror-unresolved", Path: d.json,
				Text: text + " may be in one of the networks of insecure-registries, but its name cannot be resolved from here: sidemirror leaves Docker Hub alone",
				Hint: "run sidemirror apply, which can resolve names, or remove that mirror",
			}
		case insecure:
			m.SkipVerify = u.Scheme == "https"
			if u.Scheme == "https" && u.Port() != "80" {
				// dockerd falls back to plain HTTP. With skip_verify a host of http is asked by HTTPS first
				// (containerd, core/remotes/docker/config, ConfigureHosts).
				m.URL = "http" + strings.TrimPrefix(text, u.Scheme)
			}
		}
		if u.Scheme != "https" && !m.SkipVerify {
			m.CA, m.Clients = nil, nil // they would make it ask by HTTPS
		}
		if !slices.ContainsFunc(list, func(other splice.Mirror) bool { return splice.SameURL(other.URL, m.URL) }) {
			list = append(list, m)
		}
	}
	return list, nil
}

// verdicts returns what an earlier run, which could resolve their names, found about the mirrors in
// sidemirror's file for docker.io, by their hosts.
func (d *docker) verdicts(hubFile string) map[string]verdict {
	f, err := d.Tree.Read(hubFile)
	if err != nil || !f.Exists() || d.Journal.Find(hubFile) == nil {
		return nil
	}
	file, err := splice.ReadHosts(hubFile, f.Data, splice.Version{Major: 99}) // whatever words it has
	if err != nil {
		return nil
	}
	found := make(map[string]verdict)
	for _, host := range file.Hosts {
		u, err := url.Parse(host.Name)
		switch {
		case err != nil:
		case host.SkipVerify:
			found[u.Host] = insecure
		default:
			found[u.Host] = secure
		}
	}
	return found
}

// absolute returns a certificate and its key with their whole paths.
func absolute(folder string, pair []string) []string {
	whole := make([]string, len(pair))
	for i, name := range pair {
		whole[i] = path.Join(folder, name)
	}
	return whole
}
