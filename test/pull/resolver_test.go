package pull_test

import (
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"

	"github.com/sidemirror/sidemirror/test/harness"
)

// What we write must mean to containerd's own reader what we meant: us first, for
// pulls alone, and then the registry itself, for pushes too.
func TestContainerdReadsTheMirrorThenTheRegistry(t *testing.T) {
	s := harness.Start(t, harness.Options{Registries: []harness.Registry{
		{Name: "reg.test:5000", Upstreams: []string{"http://127.0.0.1:1"}},
	}})
	h := newHost(t, s)
	h.run(t, "apply")
	hosts := config.ConfigureHosts(t.Context(), config.HostOptions{HostDir: config.HostDirFromRoot(h.certs())})
	for registry, origin := range map[string]string{
		"docker.io":     "https://registry-1.docker.io/v2",
		"ghcr.io":       "https://ghcr.io/v2",
		"reg.test:5000": "https://reg.test:5000/v2",
	} {
		t.Run(registry, func(t *testing.T) {
			read, err := hosts(registry)
			if err != nil {
				t.Fatal(err)
			}
			if len(read) != 2 {
				t.Fatalf("containerd reads %d hosts, want the mirror and the registry: %+v", len(read), read)
			}
			for i, want := range []struct {
				url          string
				capabilities docker.HostCapabilities
			}{
				{s.URL() + "/v2", docker.HostCapabilityPull | docker.HostCapabilityResolve},
				{origin, docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush},
			} {
				if url := read[i].Scheme + "://" + read[i].Host + read[i].Path; url != want.url {
					t.Errorf("host %d is %s, want %s", i, url, want.url)
				}
				// What else the registry itself may do, as referrers, is containerd's affair.
				pushes := docker.HostCapabilityPush
				if got := read[i].Capabilities; got&want.capabilities != want.capabilities || got&pushes != want.capabilities&pushes {
					t.Errorf("host %d may do %b, want %b", i, got, want.capabilities)
				}
			}
		})
	}
}
