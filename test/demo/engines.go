package main

import (
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
	if missing := lacking("containerd", "ctr"); missing != "" {
		s.line("  %s", s.dim("no containerd here ("+missing+"): test/setup.sh installs it"))
		return
	}
	containerd := engine.StartContainerd(s, h.path("etc/containerd/certs.d"))
	told := len(m.lines(registryName))
	err := containerd.Pull(s.ctx, reference, "")
	s.check(err == nil, "containerd: ctr images pull --hosts-dir %s %s%s",
		h.short("etc/containerd/certs.d"), reference, reason(err))
	told = len(m.lines(registryName)) - told
	s.check(told > 0, "  by %d requests to sidemirror", told)

	if missing := lacking("dockerd", "docker"); missing != "" {
		s.line("  %s", s.dim("no Docker here ("+missing+"): test/setup.sh installs it"))
		return
	}
	// Docker's mirrors are for its own Hub alone, so that is who the registry plays.
	m.run(s, "login", "--username", user, "--password-stdin", "docker.io")
	docker := engine.StartDocker(s, engine.DockerOptions{Config: h.path("etc/docker/daemon.json")})
	told = len(m.lines("docker.io"))
	err = docker.Pull(s.ctx, repository+":v1", "")
	s.check(err == nil, "dockerd with %s: docker pull %s:v1%s", h.short("etc/docker/daemon.json"), repository, reason(err))
	told = len(m.lines("docker.io")) - told
	s.check(told > 0, "  by %d requests to sidemirror", told)
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

func reason(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}
