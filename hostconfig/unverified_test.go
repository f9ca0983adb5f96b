package hostconfig

import (
	"maps"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/certtest"
)

// What one engine does not verify must not reach an engine that would refuse it, by way of sidemirror.
func TestARegistryIsUnverifiedOnlyIfEveryEngineThatGoesThroughSidemirrorSaysSo(t *testing.T) {
	const (
		skip     = "[host.\"https://r.example\"]\n  capabilities = [\"pull\", \"resolve\"]\n  skip_verify = true\n"
		plain    = "server = \"http://r.example\"\n"
		insecure = "[[registry]]\nprefix = \"r.example\"\nlocation = \"r.example\"\ninsecure = true\n"
	)
	one, both := []string{engine.Containerd}, []string{engine.Containerd, engine.Docker}
	all := []string{engine.Containerd, engine.Docker, engine.Podman, engine.BuildKit}
	for name, test := range map[string]struct {
		docker  string // its version
		engines []string
		named   bool
		files   map[string]string
		want    string // how it is adopted; "" if containerd is left to itself
	}{
		"containerd is alone":                          {engines: one, want: "skip"},
		"containerd is alone, by plain HTTP":           {engines: one, files: map[string]string{rHosts: plain}, want: "plain"},
		"Docker says nothing":                          {docker: "29.1.0", engines: both},
		"Docker says nothing of plain HTTP":            {docker: "29.1.0", engines: both, files: map[string]string{rHosts: plain}},
		"Docker says nothing of a named one":           {docker: "29.1.0", engines: both, named: true},
		"Docker should not go through sidemirror":      {docker: "29.1.0", engines: one, want: "skip"},
		"Docker has mirrors for Docker Hub alone":      {docker: "26.1.5", engines: both, want: "skip"},
		"Docker says so too":                           {docker: "29.1.0", engines: both, files: map[string]string{dockerCerts + "r.example/hosts.toml": skip}, want: "skip"},
		"Docker says so too, of a named one":           {docker: "29.1.0", engines: both, named: true, files: map[string]string{dockerCerts + "r.example/hosts.toml": skip}, want: "skip"},
		"Docker says plain HTTP":                       {docker: "29.1.0", engines: both, files: map[string]string{dockerCerts + "r.example/hosts.toml": plain}},
		"Docker goes there itself, by an empty folder": {docker: "29.1.0", engines: both, files: map[string]string{dockerCerts + "r.example/": ""}, want: "skip"},
		"Docker goes there itself, as insecure":        {docker: "29.1.0", engines: both, files: map[string]string{dockerJSON: `{"insecure-registries": ["r.example"]}`}, want: "skip"},
		"Docker has a CA":                              {docker: "29.1.0", engines: both, files: map[string]string{dockerCerts + "r.example/ca.crt": "CERTIFICATE"}},
		"Docker's files cannot be read":                {docker: "29.1.0", engines: both, files: map[string]string{dockerJSON: `{"insecure-registries": `}},
		"podman and buildkitd do not see it":           {engines: all, files: map[string]string{"/usr/bin/podman": "", "/usr/bin/buildkitd": ""}, want: "skip"},
		"podman verifies it":                           {engines: all, named: true, files: map[string]string{"/usr/bin/podman": ""}},
		"podman does not":                              {engines: all, named: true, files: map[string]string{"/usr/bin/podman": "", "/etc/containers/registries.conf": insecure}, want: "skip"},
		"podman does not verify a part of it": {engines: all, named: true, files: map[string]string{
			"/usr/bin/podman": "", "/etc/containers/registries.conf": strings.ReplaceAll(insecure, "r.example\"", "r.example/a\""),
		}},
		"buildkitd verifies it": {engines: all, named: true, files: map[string]string{"/usr/bin/buildkitd": ""}},
		"buildkitd does not":    {engines: all, named: true, files: map[string]string{"/usr/bin/buildkitd": "", buildkitConf: "[registry.\"r.example\"]\n  insecure = true\n"}, want: "skip"},
		"buildkitd asks by plain HTTP": {engines: all, named: true, files: map[string]string{
			"/usr/bin/buildkitd": "", rHosts: plain, buildkitConf: "[registry.\"r.example\"]\n  http = true\n",
		}, want: "plain"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{containerdConfig: "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n", rHosts: skip}
			maps.Copy(files, test.files)
			if test.docker != "" {
				files["/usr/bin/dockerd"] = ""
			}
			for file, text := range files {
				if text == "CERTIFICATE" {
					files[file], _ = certtest.New(t)
				}
			}
			h := host(t, files)
			h.Versions = map[string]string{engine.Containerd: "2.1.9", engine.Podman: "4.3.1"}
			if test.docker != "" {
				h.Versions[engine.Docker] = test.docker
			}
			want := engine.Desired{Mirror: ourURL, Registries: []string{"docker.io"}, Any: true, Engines: test.engines}
			if test.named {
				want.Registries = append(want.Registries, "r.example")
			}
			before := h.snapshot(t)
			// What was adopted before the other engine came is given back.
			alone := want
			alone.Engines = one
			h.apply(t, alone)
			contains(t, h.get(t, rHosts), ourURL)

			plan := h.plan(t, want)
			got := ""
			for _, a := range plan.Adopted {
				if a.Registry == "r.example" {
					got += map[bool]string{true: "skip"}[a.SkipVerify] + map[bool]string{true: "plain"}[a.PlainHTTP]
				}
			}
			if got != test.want {
				t.Errorf("adopted: %q", got)
			}
			note := plan.note("registry-verified-by-another")
			if (note == nil) != (test.want != "") {
				t.Errorf("the note: %v", note)
			}
			_, _ = h.try(t, want) // which fails for a file that is invalid
			if through := strings.Contains(h.get(t, rHosts), ourURL); through != (test.want != "") {
				t.Errorf("containerd pulls through sidemirror: %t", through)
			}
			if state := stateOf(t, h.plan(t, want), engine.Containerd); (state.Mirror == engine.Partial) != (test.want == "") {
				t.Errorf("containerd's pulls go through sidemirror: %s", state.Mirror)
			}
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}

func TestANoteNamesTheEngineThatVerifies(t *testing.T) {
	h := host(t, map[string]string{
		containerdConfig:   "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
		"/usr/bin/dockerd": "",
		rHosts:             "[host.\"https://r.example\"]\n  capabilities = [\"pull\", \"resolve\"]\n  skip_verify = true\n",
	})
	h.Versions[engine.Docker] = "29.1.0"
	note := h.plan(t, engine.Desired{Mirror: ourURL, Any: true, Engines: []string{engine.Containerd, engine.Docker}}).note("registry-verified-by-another")
	if note == nil {
		t.Fatal("no note")
	}
	contains(t, note.Error(), rHosts, "containerd reach r.example without verifying its certificate, which docker does not", "containerd pulls from it directly")
	contains(t, note.Hint, "give docker the same setting")
}
