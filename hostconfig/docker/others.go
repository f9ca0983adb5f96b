package docker

import (
	"context"
	"fmt"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// snap is the Docker of Canonical's snap, which sidemirror leaves alone.
type snap struct{ *engine.Host }

const snapFolder = "/var/snap/docker/current/config"

func (snap) Name() string { return engine.Docker }

func (d snap) Detect(context.Context) (engine.State, bool) {
	if !d.Tree.IsDir(snapFolder) {
		return engine.State{}, false
	}
	s := engine.State{Engine: engine.Docker, Home: "snap", Present: true, Config: snapFolder + "/daemon.json"}
	s.Note(problem.Problem{
		Code: "docker-snap", Path: s.Config,
		Text: "sidemirror leaves it alone: a snap reads no hosts.toml files, and without those Docker 28 and later would stop verifying TLS to Docker Hub",
		Hint: "use Docker's own packages",
	})
	return s, true
}

func (d snap) Plan(_ context.Context, s engine.State, _ engine.Desired) engine.Plan {
	return engine.Plan{State: s}
}

// rootless are the Dockers that run as users. Root writes nothing below a user's home, whose folders
// the user can exchange for links at any time.
type rootless struct{ *engine.Host }

// maxUsers bounds what is said of processes that any user can start.
const maxUsers = 8

func (rootless) Name() string { return engine.Docker }

func (d rootless) Detect(context.Context) (engine.State, bool) {
	if d.Running == nil {
		return engine.State{}, false
	}
	users := d.Running.Users("dockerd")
	if len(users) == 0 {
		return engine.State{}, false
	}
	s := engine.State{Engine: engine.Docker, Home: "users", Present: true, Running: true}
	for _, uid := range users[:min(len(users), maxUsers)] {
		s.Note(problem.Problem{
			Code: "docker-rootless",
			Text: fmt.Sprintf("user %d seems to run a Docker of its own; root writes nothing into a user's home", uid),
			Hint: "as that user, with Docker 29.5 or later, write ~/.config/docker/certs.d/docker.io/hosts.toml; earlier versions cannot reach the host's loopback",
		})
	}
	return s, true
}

func (d rootless) Plan(_ context.Context, s engine.State, _ engine.Desired) engine.Plan {
	return engine.Plan{State: s}
}
