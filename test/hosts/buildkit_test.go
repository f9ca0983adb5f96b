package hosts_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/process"
)

const buildkitConf = "/etc/buildkit/buildkitd.toml"

// startBuildkit starts buildkitd as its unit does.
func (r *rig) startBuildkit(t *testing.T) *process.Daemon {
	t.Helper()
	// Without systemd, which would name the process of its unit, buildkitd is believed by its socket
	// alone. buildkitd makes that socket's folder, with mode 0770 and the group root.
	return r.host.Start(t, func(string) error {
		if !exists(r.host.Path("/run/buildkit/buildkitd.sock")) {
			return errors.New("it does not listen")
		}
		return nil
	}, "buildkitd", "/usr/bin/buildkitd", "--oci-worker-snapshotter", "native", "--containerd-worker=false")
}

// buildFrom builds an image on one of a registry.
func (r *rig) buildFrom(t *testing.T, name string) by {
	t.Helper()
	return r.pulled(t, func(repository, _ string) error { return r.buildByBuildkitd(t, name+"/"+repository) })
}

// buildByBuildkitd builds an image on the one of a repository, by buildkitd.
func (r *rig) buildByBuildkitd(t *testing.T, repository string) error {
	t.Helper()
	folder := "/tmp/" + strings.ReplaceAll(repository, "/", "-")
	r.put(t, map[string]string{filepath.Join(folder, "Dockerfile"): "FROM " + repository + ":v1\nCOPY Dockerfile /\n"})
	return r.runs(t, "/usr/bin/buildctl", "build", "--frontend", "dockerfile.v0",
		"--local", "context="+folder, "--local", "dockerfile="+folder, "--output", "type=oci,dest="+folder+"/out.tar")
}

// buildByDocker builds an image on the one of a repository, by the BuildKit that is in dockerd.
func (r *rig) buildByDocker(t *testing.T, repository string) error {
	t.Helper()
	const script = `printf 'FROM %s:v1\n' "$1" | env DOCKER_BUILDKIT=1 docker build --quiet --tag built -`
	return r.runs(t, "sh", "-c", script, "sh", repository)
}

// runs runs a command on the host, which must succeed.
func (r *rig) runs(t *testing.T, line ...string) error {
	t.Helper()
	stdout, stderr, code, err := r.host.Run(t.Context(), line...)
	if err == nil && code != 0 {
		err = fmt.Errorf("%q: exit code %d\n%s%s", line, code, stdout, stderr)
	}
	return err
}

// TestBuildkitdBuildsThroughSidemirror shows that a build pulls straight from the registry before apply,
// through sidemirror after apply and a restart, and straight again while sidemirror is stopped. After
// revert every byte is as before.
func TestBuildkitdBuildsThroughSidemirror(t *testing.T) {
	for name, config := range map[string]string{
		"no file": "",
		"a file":  "# by hand\ndebug = true\n\n[registry.\"reg.test\"]\n  mirrors = [] # none yet\n",
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{}
			if config != "" {
				files[buildkitConf] = config
			}
			r := newRig(t, rigOptions{generation: engine.BuildKit, files: files, tools: true})
			daemon := r.startBuildkit(t)
			check := func(when, registry string, want by) {
				t.Helper()
				if got := r.buildFrom(t, registry); got != want {
					t.Errorf("%s a build pulls from %s %s; want %s", when, registry, got, want)
				}
			}
			check("before apply", otherName, direct)
			first := r.takeTree(t)
			time.Sleep(2 * time.Second) // the time of a process's start is known to a second
			r.do(t, 0, "apply", "--engine", "buildkit")
			if stdout, _ := r.do(t, 1, "status", "--engine", "buildkit"); !strings.Contains(stdout, "was started before this file was changed") {
				t.Errorf("status says:\n%s", stdout)
			}
			check("before a restart", otherName, direct)
			daemon.Stop()
			daemon = r.startBuildkit(t)
			r.do(t, 0, "status", "--engine", "buildkit")
			check("after a restart", otherName, viaSidemirror)
			check("after a restart", hubName, viaSidemirror)
			r.sidemirror.Stop()
			check("while sidemirror is stopped", otherName, direct)
			r.do(t, 0, "revert")
			daemon.Stop()
			r.startBuildkit(t)
			check("after revert", otherName, direct)
			r.sameTree(t, "after revert", first)
		})
	}
}

// TestDockersOwnBuildKitUsesTheMirrorsOfDockerd shows when docker build goes through sidemirror: as
// soon as docker pull does, and with Docker 20.10 when dockerd has been restarted.
func TestDockersOwnBuildKitUsesTheMirrorsOfDockerd(t *testing.T) {
	for _, g := range engine.Generations() {
		t.Run(string(g), func(t *testing.T) {
			r := newRig(t, rigOptions{generation: g})
			check := func(when string, want by) {
				t.Helper()
				got := r.pulled(t, func(repository, _ string) error { return r.buildByDocker(t, repository) })
				if got != want {
					t.Errorf("%s a build pulls %s; want %s", when, got, want)
				}
			}
			check("before apply", direct)
			r.do(t, 0, "apply")
			if got := r.byDocker(t, ""); got != viaSidemirror {
				t.Errorf("docker pull pulls %s", got)
			}
			reloaded := viaSidemirror
			if g == engine.Bookworm {
				reloaded = direct
			}
			check("before a restart", reloaded)
			r.host.StartDocker(t)
			check("after a restart", viaSidemirror)
			r.sidemirror.Stop()
			check("while sidemirror is stopped", direct)
		})
	}
}
