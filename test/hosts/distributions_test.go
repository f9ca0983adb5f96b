package hosts_test

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/process"
)

// home is how a distribution of Kubernetes runs its containerd. The distributions themselves cannot be
// had by the tests: real containerds run with their paths, flags and files.
type home struct {
	name, config, hosts, socket string
	root, state                 string
	unset                       bool // it sets no config_path
}

var homes = []home{
	{
		name: "k3s", config: "/var/lib/rancher/k3s/agent/etc/containerd/config.toml", hosts: "/var/lib/rancher/k3s/agent/etc/containerd/certs.d",
		socket: "/run/k3s/containerd/containerd.sock", root: "/var/lib/rancher/k3s/agent/containerd", state: "/run/k3s/containerd",
	},
	{
		name: "microk8s", config: "/var/snap/microk8s/current/args/containerd.toml", hosts: "/var/snap/microk8s/current/args/certs.d",
		socket: "/var/snap/microk8s/common/run/containerd.sock", root: "/var/snap/microk8s/common/var/lib/containerd", state: "/var/snap/microk8s/common/run/containerd",
	},
	{
		name: "k0s", config: "/etc/k0s/containerd.toml", hosts: "/etc/k0s/certs.d",
		socket: "/run/k0s/containerd.sock", root: "/var/lib/k0s/containerd", state: "/run/k0s/containerd", unset: true,
	},
}

// text is the configuration that the distribution generates for a containerd.
func (h home) text(g engine.Generation) string {
	version, section := 3, "io.containerd.cri.v1.images"
	if g == engine.Bookworm || g == engine.Trixie {
		version, section = 2, "io.containerd.grpc.v1.cri"
	}
	text := fmt.Sprintf("version = %d\n", version)
	if h.unset {
		return "# k0s_managed=true\n" + text + "imports = [\"/run/k0s/containerd-cri.toml\"]\n"
	}
	return text + fmt.Sprintf("[plugins.%q.registry]\n  config_path = %q\n", section, h.hosts)
}

// start starts the containerd of a distribution as the distribution does.
func (r *rig) startHome(t *testing.T, h home) *process.Daemon {
	t.Helper()
	if h.unset { // k0s merges its drop-ins into this file
		merged := r.read(t, "/etc/k0s/containerd.d/99-sidemirror.toml")
		if err := errors.Join(os.MkdirAll(r.host.Path("/run/k0s"), 0o755), os.WriteFile(r.host.Path("/run/k0s/containerd-cri.toml"), []byte(merged), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return r.host.Start(t, func(output string) error {
		if !strings.Contains(output, "containerd successfully booted") {
			return errors.New("it has not booted")
		}
		return nil
	}, "containerd", "--config", h.config, "--address", h.socket, "--state", h.state, "--root", h.root)
}

// byHome pulls a new image by the containerd of a distribution.
func (r *rig) byHome(t *testing.T, h home, name string) by {
	t.Helper()
	return r.pulled(t, func(repository, digest string) error {
		return r.host.PullCRIAt(t.Context(), h.socket, name+"/"+repository+":v1", digest)
	})
}

// A real containerd in the place of each distribution's: it is found by its socket, asked, probed and
// mirrored, and every byte is as before after revert.
func TestDistributionsPullThroughSidemirror(t *testing.T) {
	engine.NeedRoot(t)
	for _, g := range engine.Generations() {
		for _, h := range homes {
			t.Run(string(g)+" "+h.name, func(t *testing.T) { homePulls(t, g, h) })
		}
	}
}

func homePulls(t *testing.T, g engine.Generation, h home) {
	t.Helper()
	files := map[string]string{h.config: h.text(g), "/etc/crictl.yaml": ""}
	if h.unset {
		files["/etc/k0s/containerd.d/.keep"] = ""
	}
	r := newRig(t, rigOptions{generation: g, files: files, tools: true})
	if h.name == "microk8s" { // a snap has a folder for each revision
		snap := filepath.Join(r.host.Root, "var/snap/microk8s")
		if err := errors.Join(os.Rename(filepath.Join(snap, "current"), filepath.Join(snap, "100")), os.Symlink("100", filepath.Join(snap, "current"))); err != nil {
			t.Fatal(err)
		}
	}
	daemon := r.startHome(t, h)
	for _, name := range []string{hubName, otherName} {
		if got := r.byHome(t, h, name); got != direct {
			t.Fatalf("before apply %s is pulled %s", name, got)
		}
	}
	first := r.takeTree(t)
	apply := []string{"apply", "--engine", "containerd"}
	if h.unset {
		apply = append(apply, "--restart-containerd")
	}
	stdout, stderr, _ := r.run(t, apply...)
	if h.unset { // k0s restarts its containerd
		daemon.Stop()
		daemon = r.startHome(t, h)
	} else if want := "containerd of " + h.name + " reads hosts.toml files in " + h.hosts; !strings.Contains(stdout, want) {
		t.Errorf("apply prints\n%s%s\nwithout %q", stdout, stderr, want)
	}
	for _, name := range []string{hubName, otherName} {
		if got := r.byHome(t, h, name); got != viaSidemirror {
			t.Errorf("after apply %s is pulled %s\n%s%s", name, got, stdout, stderr)
		}
	}
	status, _, _ := r.run(t, "status", "--engine", "containerd")
	known := "reported by containerd"
	if g != engine.Built {
		known = "read in its files"
	}
	if !strings.Contains(status, "containerd  "+h.name+", ") || !strings.Contains(status, ", running: mirror active ("+known+")") {
		t.Errorf("status prints\n%s", status)
	}
	if h.name == "k3s" {
		r.survivesGeneratedFiles(t, h, apply)
	}
	r.sidemirror.Stop()
	if got := r.byHome(t, h, otherName); got != direct {
		t.Errorf("while sidemirror is stopped, reg.test is pulled %s", got)
	}
	r.do(t, 0, "revert")
	if h.unset {
		daemon.Stop()
		r.startHome(t, h)
	}
	if got := r.byHome(t, h, otherName); got != direct {
		t.Errorf("after revert reg.test is pulled %s", got)
	}
	r.sameTree(t, "after revert", first)
}

// survivesGeneratedFiles plays a start of k3s with reg.test in its registries.yaml: the folder of that
// registry is replaced, with a table that only the containerd of k3s knows, and the entry is added again.
func (r *rig) survivesGeneratedFiles(t *testing.T, h home, apply []string) {
	t.Helper()
	folder := filepath.Join(r.host.Root, h.hosts, otherName)
	text := fmt.Sprintf("# File generated by k3s. DO NOT EDIT.\n\n\nserver = \"https://%[1]s/v2\"\ncapabilities = [\"pull\", \"resolve\", \"push\"]\n\n\n"+
		"[host]\n[host.\"https://%[1]s/v2\"]\n  capabilities = [\"pull\", \"resolve\"]\n  [host.\"https://%[1]s/v2\".rewrite]\n    \"^none/(.*)\" = \"$1\"\n", otherName)
	ours := r.read(t, path.Join(h.hosts, otherName, "hosts.toml"))
	generate := func() {
		if err := errors.Join(os.RemoveAll(folder), os.Mkdir(folder, 0o700), os.WriteFile(filepath.Join(folder, "hosts.toml"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	generate()
	if got := r.byHome(t, h, otherName); got != direct {
		t.Errorf("after a start of k3s reg.test is pulled %s", got)
	}
	if got := r.byHome(t, h, hubName); got != viaSidemirror {
		t.Errorf("after a start of k3s docker.io, which it does not generate, is pulled %s", got)
	}
	stdout, stderr, _ := r.run(t, apply...)
	if got := r.byHome(t, h, otherName); got != viaSidemirror {
		t.Errorf("after the next apply reg.test is pulled %s\n%s%s", got, stdout, stderr)
	}
	if now := r.read(t, path.Join(h.hosts, otherName, "hosts.toml")); !strings.HasPrefix(now, "# File generated by k3s. DO NOT EDIT.\n") {
		t.Errorf("k3s would not recognise its file:\n%s", now)
	}
	// Without that registry in registries.yaml k3s removes the folder.
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	r.run(t, apply...)
	if now := r.read(t, path.Join(h.hosts, otherName, "hosts.toml")); now != ours {
		t.Errorf("after k3s has removed its file sidemirror's own is\n%s", now)
	}
}
