package pull_test

import (
	"fmt"
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

// Every registry without a folder of its own is asked for here first, and then where containerd itself
// would look, in the same way: at loopback by HTTPS and then by plain HTTP.
func TestContainerdReadsTheMirrorForRegistriesWithoutATable(t *testing.T) {
	s := harness.Start(t, harness.Options{Unnamed: true})
	h := newHost(t, s)
	h.run(t, "apply")
	hosts := config.ConfigureHosts(t.Context(), config.HostOptions{HostDir: config.HostDirFromRoot(h.certs())})
	without := config.ConfigureHosts(t.Context(), config.HostOptions{})
	for registry, origin := range map[string]string{
		"docker.io":        "https://registry-1.docker.io/v2",
		"any.example":      "https://any.example/v2",
		"any.example:5000": "https://any.example:5000/v2",
		"10.0.0.1:5000":    "https://10.0.0.1:5000/v2",
		"localhost:5000":   "https://localhost:5000/v2",
		"127.0.0.1:5000":   "https://127.0.0.1:5000/v2",
		"127.9.9.9":        "https://127.9.9.9/v2",
	} {
		t.Run(registry, func(t *testing.T) {
			read, err := hosts(registry)
			if err != nil {
				t.Fatal(err)
			}
			before, err := without(registry)
			if err != nil {
				t.Fatal(err)
			}
			if len(read) != 2 || len(before) != 1 {
				t.Fatalf("containerd reads %d hosts, and %d without a file: %+v", len(read), len(before), read)
			}
			if url := read[0].Scheme + "://" + read[0].Host + read[0].Path; url != s.URL()+"/v2" || read[0].Capabilities.Has(docker.HostCapabilityPush) {
				t.Errorf("the first host is %s, which may do %b", url, read[0].Capabilities)
			}
			for _, last := range []docker.RegistryHost{read[1], before[0]} {
				if url := last.Scheme + "://" + last.Host + last.Path; url != origin || !last.Capabilities.Has(docker.HostCapabilityPush) {
					t.Errorf("the last host is %s, which may do %b; want %s", url, last.Capabilities, origin)
				}
			}
			if now, was := fmt.Sprintf("%T", read[1].Client.Transport), fmt.Sprintf("%T", before[0].Client.Transport); now != was {
				t.Errorf("the last host is asked by %s, and without a file by %s", now, was)
			}
		})
	}
}
