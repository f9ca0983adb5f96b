package containerd

import (
	"path"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/hostconfig/unitfile"
)

// distribution is a distribution of Kubernetes that starts a containerd of its own.
type distribution struct {
	name   string // also the State's Home, and the name by which live.Host knows the daemon
	data   string // the folder that its --data-dir names by default; "" if it has no such flag
	config string // containerd's configuration file; below data unless it is absolute
	hosts  string // the folder of hosts.toml files if that file does not say it; below its own folder
	socket string
	units  []string // the units that start the distribution
	yaml   string   // the distribution's own configuration file; "" if it has none with a data-dir
}

// rancherConfig is where k3s and RKE2 have containerd's configuration below their data folder
// (k3s, pkg/agent/config).
const rancherConfig = "agent/etc/containerd/config.toml"

// distributions are those whose containerd reads hosts.toml files by default, and k0s.
var distributions = []distribution{
	{
		name: "k3s", data: "/var/lib/rancher/k3s", config: rancherConfig, hosts: "certs.d",
		socket: "/run/k3s/containerd/containerd.sock", units: []string{"k3s.service", "k3s-agent.service"},
		yaml: "/etc/rancher/k3s/config.yaml",
	},
	{
		name: "rke2", data: "/var/lib/rancher/rke2", config: rancherConfig, hosts: "certs.d",
		socket: "/run/k3s/containerd/containerd.sock", units: []string{"rke2-server.service", "rke2-agent.service"},
		yaml: "/etc/rancher/rke2/config.yaml",
	},
	{
		name: "microk8s", config: "/var/snap/microk8s/current/args/containerd.toml", hosts: "certs.d",
		socket: "/var/snap/microk8s/common/run/containerd.sock", units: []string{"snap.microk8s.daemon-containerd.service"},
	},
	{
		name: k0sName, config: "/etc/k0s/containerd.toml", hosts: "certs.d",
		socket: "/run/k0s/containerd.sock", units: []string{"k0sworker.service", "k0scontroller.service"},
	},
}

// Queries find the containerds of distributions, by their names. Their processes are not the main
// processes of units, so that only their sockets vouch for them.
func Queries() map[string]process.Query {
	queries := make(map[string]process.Query)
	for _, d := range distributions {
		queries[d.name] = process.Query{Name: "containerd", Units: d.units, Socket: d.socket, Accept: d.accepts}
	}
	return queries
}

// accepts reports whether a containerd is the distribution's. k3s and RKE2 have the same socket.
func (d distribution) accepts(p process.Process) bool { return ownerOf(p) == d.name }

// ownerOf returns the distribution that a containerd belongs to, by its configuration file and its
// unit; "" if to none.
func ownerOf(p process.Process) string {
	config := process.Flag(p.Args, "--config", "-c")
	switch {
	case strings.HasSuffix(config, "/"+rancherConfig):
		if strings.HasPrefix(p.Unit, "rke2") || strings.Contains(config, "/rke2/") {
			return "rke2"
		}
		return "k3s"
	case strings.HasPrefix(config, "/var/snap/microk8s/"):
		return "microk8s"
	case strings.HasPrefix(config, "/etc/k0s/"):
		return k0sName
	}
	return ""
}

// configFile returns the configuration file of the distribution's containerd: the running one's, or
// else the one below the data folder that its unit or its own configuration file names.
func (d distribution) configFile(h *engine.Host, daemon live.Daemon) string {
	if path.IsAbs(d.config) {
		return d.config
	}
	if daemon != nil {
		if name := process.Flag(daemon.Args(), "--config", "-c"); path.IsAbs(name) {
			return path.Clean(name)
		}
	}
	for _, data := range []string{d.dataOfUnit(h), d.dataOfYAML(h)} {
		if path.IsAbs(data) && h.Tree.IsDir(data) {
			return path.Join(data, d.config)
		}
	}
	return path.Join(d.data, d.config)
}

// dataOfUnit returns the data folder that a flag in the distribution's unit names, or "".
func (d distribution) dataOfUnit(h *engine.Host) string {
	for _, unit := range d.units {
		if service, err := unitfile.Read(h.Tree, unit); err == nil {
			if name := process.Flag(service.Args, "--data-dir", "-d"); name != "" {
				return name
			}
		}
	}
	return ""
}

// dataOfYAML returns the data folder that the distribution's configuration file names, or "". That
// file is a flat list of flags, so that a line is all that must be understood of YAML.
func (d distribution) dataOfYAML(h *engine.Host) string {
	f, err := h.Tree.ReadTrusted(d.yaml)
	if d.yaml == "" || err != nil {
		return ""
	}
	for line := range strings.Lines(string(f.Data)) {
		if value, ok := strings.CutPrefix(line, "data-dir:"); ok {
			value, _, _ = strings.Cut(value, " #")
			return strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return ""
}

// present reports whether the distribution has been on the host, whether it runs or not.
func (d distribution) present(h *engine.Host) bool {
	if d.name == k0sName {
		return h.Tree.IsDir(k0sDropIns)
	}
	return h.Tree.IsDir(path.Dir(d.configFile(h, nil)))
}
