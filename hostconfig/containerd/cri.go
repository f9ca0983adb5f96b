package containerd

import (
	"path"
	"slices"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

// Signs that a program uses CRI on a host: the kubelet, tools that set it up, and crictl.
var (
	criPrograms = []string{"kubelet", "kubeadm", "crictl"}
	criFiles    = []string{"/etc/crictl.yaml"}
	criFolders  = []string{
		"/etc/kubernetes", "/var/lib/kubelet",
		"/run/containerd/io.containerd.runtime.v2.task/k8s.io", // made for the first container of CRI
	}
	unitFolders = []string{"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}
)

// usesCRI reports whether a program on the host pulls by CRI, or whether a person has configured how
// CRI pulls. Where neither is so, as on a plain Docker host, it does not matter whether CRI reads
// hosts.toml files.
func (c *containerd) usesCRI() bool {
	return c.conf.path != "" && c.conf.path != builtIn || c.running.path != "" || len(c.conf.conflicts) > 0 ||
		slices.ContainsFunc(criPrograms, func(name string) bool { return c.Program(name) != "" }) ||
		slices.ContainsFunc(criFiles, c.Tree.IsFile) ||
		slices.ContainsFunc(criFolders, c.Tree.IsDir) ||
		slices.ContainsFunc(unitFolders, func(folder string) bool { return c.Tree.IsFile(path.Join(folder, "kubelet.service")) })
}

// forCRI makes notes of the problems of a plan from the given one on, which are about CRI, if no
// program uses CRI.
func (c *containerd) forCRI(p *engine.Plan, from int, want engine.Desired) {
	if from == len(p.State.Problems) || want.RestartContainerd || c.usesCRI() {
		return
	}
	for _, what := range p.State.Problems[from:] {
		note := *what
		note.Text += " (nothing on this host uses CRI, which is for Kubernetes)"
		p.State.Note(note)
	}
	p.State.Problems = p.State.Problems[:from:from]
}
