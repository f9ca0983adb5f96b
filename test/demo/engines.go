package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/process"
)

// realEngines has the engines of this machine pull through the written files too,
// or says why not.
func realEngines(s *scene, h *host, m *sidemirror) {
	s.chapter("The engines of this machine")
	if os.Geteuid() != 0 {
		s.line("  %s", s.dim("containerd and Docker need root: sudo make demo has them pull too"))
		return
	}
	if _, err := os.Stat("/proc/self"); err != nil {
		s.line("  %s", s.dim("containerd and Docker need /proc, which is not mounted here"))
		return
	}
	if missing := lacking("containerd", "ctr"); missing != "" {
		s.line("  %s", s.dim("no containerd here ("+missing+"): test/setup.sh installs it"))
		return
	}
	containerd := engine.StartContainerd(s, h.path("etc/containerd/certs.d"))
	watch(s, m, registryName, version(s, "containerd", 2)+": ctr images pull --hosts-dir "+h.short("etc/containerd/certs.d")+" "+reference,
		func() error { return containerd.Pull(s.ctx, reference, "") })

	if missing := lacking("dockerd", "docker"); missing != "" {
		s.line("  %s", s.dim("no Docker here ("+missing+"): test/setup.sh installs it"))
		return
	}
	// Docker's mirrors are for its own Hub alone, so that is who the registry plays.
	s.gap()
	docker := engine.StartDocker(s, engine.DockerOptions{Config: h.path("etc/docker/daemon.json")})
	watch(s, m, "docker.io", version(s, "dockerd", 2)+" with "+h.short("etc/docker/daemon.json")+": docker pull "+repository+":v1",
		func() error { return docker.Pull(s.ctx, repository+":v1", "") })
}

// watch has an engine pull, and counts sidemirror's access lines meanwhile.
func watch(s *scene, m *sidemirror, registry, what string, pull func() error) {
	before := len(m.lines(registry))
	if err := pull(); err != nil {
		s.Errorf("%s: %v", what, err)
		return
	}
	asked := len(m.linesAtLeast(registry, before+1)) - before
	s.check(asked > 0, "%s", what)
	s.line("    %s", s.dim(fmt.Sprintf("by %d requests to sidemirror", asked)))
}

// version is a program's name and the word of its --version that is its version.
func version(s *scene, program string, word int) string {
	path, err := process.Find(program)
	s.must(err)
	out, err := process.Run(s.ctx, nil, path, "--version")
	s.must(err)
	words := strings.Fields(out)
	if len(words) <= word {
		return program
	}
	return program + " " + strings.TrimRight(words[word], ",")
}

func lacking(programs ...string) string {
	var missing []string
	for _, program := range programs {
		if _, err := process.Find(program); err != nil {
			missing = append(missing, program)
		}
	}
	return strings.Join(missing, ", ")
}
