package hostconfig

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
)

// home is where a distribution of containerd's has its files. It writes its
// config.toml anew at each start, with a config_path of its own, so that only the
// hosts.toml files are for us.
type home struct{ name, folder, hosts string }

var homes = []home{
	{"k3s", "/var/lib/rancher/k3s/agent/etc/containerd", "/var/lib/rancher/k3s/agent/etc/containerd/certs.d"},
	{"rke2", "/var/lib/rancher/rke2/agent/etc/containerd", "/var/lib/rancher/rke2/agent/etc/containerd/certs.d"},
	{"microk8s", "/var/snap/microk8s/current/args", "/var/snap/microk8s/current/args/certs.d"},
}

func inHome(file string) bool {
	return slices.ContainsFunc(homes, func(h home) bool { return strings.HasPrefix(file, h.folder+"/") })
}

// k0s and snap tell of engines that are left alone, with the reason.
func (p *planner) k0s() []State {
	if !p.tree.IsDir("/etc/k0s/containerd.d") {
		return nil
	}
	s := State{Engine: Containerd, Home: "k0s", Present: true, Mirror: "left alone"}
	s.note(fmt.Sprintf("k0s reads hosts.toml only where a file in /etc/k0s/containerd.d sets config_path; set it to %s there and restart k0s", containerdHosts))
	return []State{s}
}

func (p *planner) snap() []State {
	const folder = "/var/snap/docker/current/config"
	if !p.tree.IsDir(folder) {
		return nil
	}
	s := State{Engine: Docker, Home: "snap", Present: true, Config: folder + "/daemon.json", Mirror: "left alone"}
	s.note("a snap sees neither /etc/docker nor the hosts.toml files there, and without those Docker 28 and later would stop verifying TLS to Docker Hub; use Docker's own packages")
	return []State{s}
}

// maxRootless bounds what is said of engines that anybody may start.
const maxRootless = 8

// rootless tells of Dockers that run as users. Root writes nothing below a user's
// home, whose folders that user may exchange for links at any time.
func (p *planner) rootless(version string) []State {
	var list []State
	for _, proc := range processes(p.tree, "dockerd") {
		if proc.uid == 0 || len(list) == maxRootless {
			continue
		}
		s := State{Engine: Docker, Home: fmt.Sprintf("rootless of user %d", proc.uid), Present: true, Running: true, Mirror: "left alone"}
		if program := proc.args[0]; !path.IsAbs(program) || slices.Contains(binFolders, path.Dir(program)) {
			s.Version = version
		}
		if v := parseVersion(s.Version); v.atLeast(29, 5) {
			s.note(fmt.Sprintf("root writes nothing into a user's home; as that user add %s to ~/.config/docker/certs.d/docker.io/hosts.toml", p.want.Mirror))
		} else {
			s.note("a rootless Docker before 29.5 cannot reach the host's loopback, where sidemirror listens; use 29.5 or later")
		}
		list = append(list, s)
	}
	return list
}

// others tells of programs that write the same files, in words that a person can
// act on. name is a configuration file of the engine's, root its hosts.toml folder.
func (p *planner) others(state *State, name, root string) {
	if root != "" && p.tree.IsDir(path.Join(root, "_backup")) {
		state.note(fmt.Sprintf("%s/_backup is Spegel's: it moves away what is in that folder whenever it starts; run one of the two", root))
	}
	f, err := p.tree.Read(name)
	if err != nil {
		return // refused, with the reason, where it is to be edited
	}
	head := string(f.Data[:min(len(f.Data), 2048)])
	for line := range strings.Lines(head) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") || splice.Marked([]byte(line)) {
			continue
		}
		for _, program := range []string{"Ansible", "kubespray", "Puppet", "Chef", "Salt", "cloud-init", "Terraform"} {
			if strings.Contains(strings.ToLower(line), strings.ToLower(program)) {
				state.note(fmt.Sprintf("%s says that %s writes it, which may undo our part; say the same there", name, program))
				return
			}
		}
	}
	if path.Ext(name) == ".json" && strings.Contains(string(f.Data), "nvidia-container-runtime") {
		state.note(fmt.Sprintf("%s names NVIDIA's runtime: nvidia-ctk writes the whole file anew whenever it is run, and forgets \"features\"", name))
	}
}
