package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
)

// The units that come with BuildKit's sources: its socket starts buildkitd with the first build.
const (
	buildkitService = `[Unit]
Description=BuildKit
Requires=buildkit.socket
After=buildkit.socket

[Service]
Type=notify
ExecStart=/usr/bin/buildkitd --addr fd:// --oci-worker-snapshotter=native --containerd-worker=false

[Install]
WantedBy=multi-user.target
`
	buildkitSocket = `[Unit]
Description=BuildKit

[Socket]
ListenStream=%t/buildkit/buildkitd.sock
SocketMode=0660

[Install]
WantedBy=sockets.target
`
)

// More ways to pull than those of every machine: they need a machine of manyEngines.
var (
	podman   = puller{"podman", (*machine).podmanPull}
	rootless = puller{"rootless-podman", (*machine).rootlessPull}
	buildah  = puller{"buildah", (*machine).buildahPull}
	skopeo   = puller{"skopeo", (*machine).skopeoPull}
	buildkit = puller{"buildkit", (*machine).buildkitPull}
)

// manyEngines makes and boots a trixie with Docker, containerd, podman, buildah, skopeo and BuildKit, as
// an administrator leaves it: containerd reads certs.d, a socket starts buildkitd, and there is a user.
func manyEngines(t testing.TB, packages ...string) (*machine, *internet) {
	t.Helper()
	m := newMachine(t, people)
	net := connect(t, m)
	m.readCerts()
	m.write("/etc/docker/daemon.json", daemonJSON, 0o640)
	m.write("/etc/containers/storage.conf", "[storage]\ndriver = \"vfs\"\ngraphroot = \"/var/lib/containers/storage\"\nrunroot = \"/run/containers/storage\"\n", 0o644)
	for folder, programs := range map[string][]string{
		engine.BuildKit.Get(t):    {"buildkitd", "buildctl"},
		engine.TrixieTools.Get(t): {"buildah", "skopeo"}, // of the same Debian
	} {
		for _, program := range programs {
			content, err := os.ReadFile(filepath.Join(folder, "usr/bin", program))
			if err != nil {
				t.Fatal(err)
			}
			m.write("/usr/bin/"+program, string(content), 0o755)
		}
	}
	m.write("/etc/systemd/system/buildkit.service", buildkitService, 0o644)
	m.write("/etc/systemd/system/buildkit.socket", buildkitSocket, 0o644)
	m.run("systemctl enable buildkit.socket && useradd --create-home ada")
	m.carry(packages...)
	m.boot()
	return m, net
}

// podmanPull pulls as root's `podman pull` does.
func (m *machine) podmanPull(reference string) error {
	return m.pullWith("podman --cgroup-manager cgroupfs --events-backend none pull --quiet " + reference)
}

// rootlessPull pulls as the podman of a user does.
func (m *machine) rootlessPull(reference string) error {
	return m.pullWith("cd / && runuser -u ada -- env HOME=/home/ada podman --storage-driver vfs --cgroup-manager cgroupfs --events-backend none pull --quiet " + reference)
}

func (m *machine) buildahPull(reference string) error {
	return m.pullWith("buildah pull --quiet " + reference)
}

func (m *machine) skopeoPull(reference string) error {
	return m.pullWith("d=$(mktemp -d) && skopeo copy --quiet docker://" + reference + " dir:$d && rm -r $d")
}

// buildkitPull builds an image that is all of another one and a file.
func (m *machine) buildkitPull(reference string) error {
	return m.pullWith("d=$(mktemp -d) && printf 'FROM " + reference + "\\nCOPY Dockerfile /\\n' >$d/Dockerfile && " +
		"buildctl build --progress plain --frontend dockerfile.v0 --local context=$d --local dockerfile=$d --output type=oci,dest=$d/out.tar && rm -r $d")
}

// pullWith runs a script that pulls.
func (m *machine) pullWith(script string) error {
	m.t.Helper()
	_, err := m.try(fmt.Sprintf("timeout %.0f sh -ec '%s'", pullLimit.Seconds(), strings.ReplaceAll(script, "'", `'\''`)))
	return err
}
