package hostconfig

import (
	"os"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

// A list of folders often ends in Docker's, as the one does that containerd has built
// in from 2.2 on. What is there is Docker's: containerd once planned to take it out
// again, at every run.
func TestContainerdLeavesDockersFilesOfItsListAlone(t *testing.T) {
	for name, lost := range map[string]bool{"with the journal": false, "where the journal is lost": true} {
		t.Run(name, func(t *testing.T) {
			h := host(t, map[string]string{
				"/etc/docker/":   "",
				containerdConfig: "version = 3\n" + criV3 + "\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n",
			})
			before := h.snapshot(t)
			want := engine.Desired{Mirror: ourURL, Registries: []string{hub}, Engines: []string{engine.Docker, engine.Containerd}}
			h.apply(t, want)
			if lost {
				if err := os.RemoveAll(h.path("/var")); err != nil {
					t.Fatal(err)
				}
			}
			if plan := h.plan(t, want); len(plan.Changes) > 0 {
				t.Errorf("after apply there is something to do: %s: %s", plan.Changes[0].Path, plan.Changes[0].Why)
			}
			h.revert(t)
			if !lost {
				sameTree(t, before, h.snapshot(t))
			}
			h.missing(t, dockerHosts+"/docker.io/hosts.toml")
			h.missing(t, containerdHosts+"/docker.io/hosts.toml")
		})
	}
}
