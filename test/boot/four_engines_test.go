package boot

import (
	"fmt"
	"testing"
)

// allEngineFiles are one file of each engine of a machine of manyEngines.
var allEngineFiles = append([]string{"/etc/containers/registries.conf.d/000-sidemirror.conf", "/etc/buildkit/buildkitd.toml"}, engineFiles...)

// Installing the package is all that four engines need: no other command runs before each pulls through
// sidemirror. Purging it restores every byte of /etc.
func TestDockerContainerdPodmanAndBuildKitPullThroughSidemirrorOnceItIsInstalled(t *testing.T) {
	t.Parallel()
	p := built(t)
	m, net := manyEngines(t, p.deb)
	etc := m.tree("/etc")
	failed := m.failed()

	m.run("apt-get install --yes --no-install-recommends --quiet " + inside(p.deb))
	for _, file := range allEngineFiles {
		m.eventually(file+" is configured", func() error { return m.mentioned(file) })
	}
	for _, p := range []puller{docker, kubernetes, podman, rootless, buildkit} {
		m.pullsBy(t, net, p, "installed-"+p.name, true)
	}
	m.login(net)
	m.run(noConfiguration)
	m.healthy()
	m.leavesNothing(t, map[string][]string{"docker": {"docker.io"}, "containerd": mirrored, "podman": mirrored})
	if now := m.failed(); fmt.Sprint(now) != fmt.Sprint(failed) {
		t.Errorf("units have failed: %q, before the installation %q", now, failed)
	}

	m.run("apt-get purge --yes --quiet sidemirror")
	for _, d := range m.tree("/etc").differences(etc,
		"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", // backups of the programs that remove a user
	) {
		t.Errorf("after the purge %s", d)
	}
	if left := m.ours(); left != "" {
		t.Errorf("after the purge there runs %s", left)
	}
	m.run("systemctl stop buildkit.service") // buildkitd reads its file only when it starts
	for _, p := range []puller{docker, kubernetes, podman, rootless, buildkit} {
		m.pullsBy(t, net, p, "purged-"+p.name, false)
	}
}
