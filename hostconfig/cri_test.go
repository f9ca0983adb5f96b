package hostconfig

import (
	"slices"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// On a plain Docker host it does not matter whether CRI reads hosts.toml files.
func TestEmptyConfigPathIsAProblemOnlyIfAProgramUsesCRI(t *testing.T) {
	for name, c := range map[string]struct {
		sign    string // a file of the host, or a folder if it ends with a slash
		config  string
		problem bool
	}{
		"plain Docker host":               {"/etc/docker/", "version = 2\n", false},
		"the default configuration":       {"/etc/docker/", "version = 2\n" + criV2 + "\nconfig_path = \"\"\n", false},
		"a CNI configuration of Docker's": {"/etc/cni/net.d/x.conflist", "version = 2\n", false},
		"kubelet":                         {"/usr/bin/kubelet", "version = 2\n", true},
		"kubelet below /usr/local":        {"/usr/local/bin/kubelet", "version = 2\n", true},
		"kubelet of a unit":               {"/etc/systemd/system/kubelet.service", "version = 2\n", true},
		"kubeadm":                         {"/usr/bin/kubeadm", "version = 2\n", true},
		"a cluster's files":               {"/etc/kubernetes/", "version = 2\n", true},
		"a kubelet's state":               {"/var/lib/kubelet/", "version = 2\n", true},
		"crictl":                          {"/usr/local/bin/crictl", "version = 2\n", true},
		"crictl's configuration":          {"/etc/crictl.yaml", "version = 2\n", true},
		"a container of CRI":              {"/run/containerd/io.containerd.runtime.v2.task/k8s.io/x", "version = 2\n", true},
		"mirrors that CRI has": {"/etc/docker/", "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n" +
			"endpoint = [\"https://a\"]\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, map[string]string{c.sign: "", containerdConfig: c.config})
			h.Versions[engine.Containerd] = "1.7.24"
			idle(h).containerd = []string{"containerd"}
			state := h.plan(t, containerdOnly("r.example")).Engines[1]
			about := func(p *problem.Problem) bool {
				return (p.Code == "containerd-config-path" || p.Code == "containerd-registry-conflict") && p.Hint != ""
			}
			if slices.ContainsFunc(state.Problems, about) != c.problem || slices.ContainsFunc(state.Notes, about) == c.problem {
				t.Errorf("problems %v, notes %v", state.Problems, state.Notes)
			}
			if state.Mirror != engine.Inactive {
				t.Errorf("mirror %s", state.Mirror)
			}
			// What a person asks for matters in any case.
			want := restarting()
			if state := h.plan(t, want).Engines[1]; !slices.ContainsFunc(state.Problems, about) {
				t.Errorf("with a restart allowed: problems %v", state.Problems)
			}
		})
	}
}

func TestDockerThatMirrorsDockerHubAloneIsMarked(t *testing.T) {
	want := dockerOnly()
	want.Registries = []string{"docker.io", "r.example"}
	for version, only := range map[string]bool{"20.10.24": true, "26.1.5": true, "29.7.2": false} {
		h := dockerHost(t, version, nil)
		if state := h.plan(t, want).Engines[0]; state.HubOnly != only {
			t.Errorf("Docker %s: %v", version, state.HubOnly)
		}
	}
	h := dockerHost(t, "29.7.2", map[string]string{dockerJSON: `{"storage-driver": "overlay2"}`})
	if state := h.plan(t, want).Engines[0]; !state.HubOnly {
		t.Errorf("with a graph driver: %+v", state)
	}
	want.Registries = []string{"docker.io"}
	if state := dockerHost(t, "26.1.5", nil).plan(t, want).Engines[0]; state.HubOnly {
		t.Error("no other registry is wanted")
	}
}

func TestEngineThatDoesNotRunIsStopped(t *testing.T) {
	h := dockerHost(t, "26.1.5", nil)
	if state := h.plan(t, dockerOnly()).Engines[0]; state.Stopped || state.Running {
		t.Errorf("in a tree nothing runs and nothing is stopped: %+v", state)
	}
	fake := idle(h)
	if state := h.plan(t, dockerOnly()).Engines[0]; !state.Stopped || state.Running {
		t.Errorf("stopped: %+v", state)
	}
	fake.off = false
	if state := h.plan(t, dockerOnly()).Engines[0]; state.Stopped || !state.Running {
		t.Errorf("running: %+v", state)
	}
}

// containerd reads its configuration only when it starts.
func TestRevertWarnsOfAContainerdThatWasNotRestarted(t *testing.T) {
	h := host(t, map[string]string{containerdConfig: "version = 2\n"})
	h.Versions[engine.Containerd] = "1.7.24"
	fake := idle(h)
	fake.containerd = []string{"containerd"}
	h.apply(t, restarting())
	result, err := Revert(t.Context(), h, ourURL)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Warnings) != 1 || result.Warnings[0].Code != "containerd-not-restarted" || result.Warnings[0].Hint == "" {
		t.Errorf("warnings: %v", result.Warnings)
	}
	h.apply(t, containerdOnly("r.example"))
	if result, err = Revert(t.Context(), h, ourURL); err != nil || len(result.Warnings) > 0 {
		t.Errorf("without a change of config.toml: %v, %v", result.Warnings, err)
	}
	h.apply(t, restarting())
	fake.containerd = nil
	if result, err = Revert(t.Context(), h, ourURL); err != nil || len(result.Warnings) > 0 {
		t.Errorf("with containerd stopped: %v, %v", result.Warnings, err)
	}
}
