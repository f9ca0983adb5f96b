package hosts_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/registry"
)

// Docker from 28.0 on stops verifying Docker Hub's certificate if registry-mirrors has a
// loopback address and docker.io no hosts.toml (moby, daemon/hosts.go). The Docker Hub here
// is signed by an authority that the host does not know: Docker must refuse it after apply,
// whether sidemirror runs or not.
func TestDockerStillVerifiesDockerHub(t *testing.T) {
	engine.NeedRoot(t)
	for _, c := range []struct {
		name       string
		generation engine.Generation
		config     string // daemon.json
		trap       bool   // the store is containerd's, which can be made not to verify
	}{
		{"28/containerd-store", engine.Sid, withSnapshotter, true},
		{"28/graph-store", engine.Sid, "{}\n", false},
		{"29/containerd-store", engine.Built, "", true},
		{"29/graph-store", engine.Built, withoutSnapshotter, false},
	} {
		if !slices.Contains(engine.Generations(), c.generation) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{}
			if c.config != "" {
				files["/etc/docker/daemon.json"] = c.config
			}
			r := newRig(t, rigOptions{generation: c.generation, files: files, distrust: true})
			first := r.takeTree(t)
			r.refused(t, "without sidemirror")
			if c.trap {
				r.provesTheTrap(t, c.config)
				r.sameTree(t, "after the trap was taken away", first)
			}

			r.do(t, 0, "apply")
			if got := r.byDocker(t, ""); got != viaSidemirror {
				t.Errorf("after apply Docker pulls %s", got)
			}
			r.sidemirror.Stop()
			r.refused(t, "after apply, while sidemirror is stopped")
			r.host.StartDocker(t)
			r.refused(t, "after apply and a restart, while sidemirror is stopped")

			r.do(t, 0, "revert")
			r.sameTree(t, "after revert", first)
			r.refused(t, "after revert")
		})
	}
}

// refused checks that dockerd takes nothing from a Docker Hub that it cannot verify. Its
// error names only the first of several hosts that failed, which is sidemirror, and its log
// all of them.
func (r *rig) refused(t *testing.T, when string) {
	t.Helper()
	r.images++
	repository := fmt.Sprintf("alice/image-%d", r.images)
	image := r.upstream.Push(t, repository, "v1", registry.Shape{Size: 1 << 12})
	before, _ := r.upstream.Requests("/v2/" + repository + "/")
	err := r.host.PullDocker(t.Context(), repository, "v1", image.Digest)
	if err == nil {
		t.Errorf("%s dockerd pulls from a Docker Hub that it cannot verify", when)
		return
	}
	if after, _ := r.upstream.Requests("/v2/" + repository + "/"); after != before {
		t.Errorf("%s dockerd sends a Docker Hub that it cannot verify %d requests", when, after-before)
	}
	const unknown = "x509: certificate signed by unknown authority"
	said := err.Error()
	for line := range strings.Lines(r.host.DockerLog()) {
		if strings.Contains(line, "https://registry-1.docker.io/v2/"+repository+"/") {
			said += "\n" + line
		}
	}
	if !strings.Contains(said, unknown) {
		t.Errorf("%s dockerd fails for another reason than that it cannot verify Docker Hub: %s", when, said)
	}
}

// provesTheTrap shows that this dockerd does not verify Docker Hub if it is configured as
// sidemirror must never do it. Otherwise this test would prove nothing. It restores the
// host's file.
func (r *rig) provesTheTrap(t *testing.T, config string) {
	t.Helper()
	file := filepath.Join(r.host.Root, "etc/docker/daemon.json")
	info, statErr := os.Stat(file)
	if (statErr != nil) != (config == "") {
		t.Fatal(statErr)
	}
	// No process listens there.
	mirror := fmt.Sprintf("{\"registry-mirrors\": [%q],", "http://"+harness.FreeAddress(t))
	trap := strings.Replace(config, "{", mirror, 1)
	if config == "" {
		trap = strings.TrimSuffix(mirror, ",") + "}"
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(trap), 0o644); err != nil {
		t.Fatal(err)
	}
	r.host.StartDocker(t)
	if got := r.byDocker(t, ""); got != direct {
		t.Errorf("dockerd %s with a loopback mirror and no hosts.toml pulls %q: the trap does not exist any more", r.info(t).ServerVersion, got)
	}
	var err error
	if config == "" {
		err = os.RemoveAll(filepath.Dir(file))
	} else if err = os.WriteFile(file, []byte(config), 0o644); err == nil {
		err = os.Chtimes(file, info.ModTime(), info.ModTime())
	}
	if err != nil {
		t.Fatal(err)
	}
	r.host.StartDocker(t)
	r.refused(t, "without the trap again")
}
