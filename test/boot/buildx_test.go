package boot

import (
	"fmt"
	"strings"
	"testing"
)

// The image that buildx runs a builder from is not to be had here. This one has the same programs.
const builderImage = `set -e
cd /
libraries=$(ldd /usr/sbin/runc /bin/sh | grep --only-matching '/[^ ]*\.so[^ ]*' | sort --unique)
tar --create --dereference --hard-dereference --no-recursion tmp usr/bin/buildkitd usr/bin/buildctl usr/sbin/runc bin/sh $libraries 2>/dev/null |
	docker import --change 'ENTRYPOINT ["/usr/bin/buildkitd"]' --change 'ENV PATH=/usr/bin:/usr/sbin:/bin' - moby/buildkit:buildx-stable-1`

// A builder of buildx runs in a container, and its builds pull through sidemirror at the address of
// Docker's bridge once its user has run setup-buildx. The service needs a capability for that port
// there, and has it only as long as guests are served.
func TestBuildersOfBuildxPullThroughSidemirror(t *testing.T) {
	t.Parallel()
	p := built(t)
	m, net := manyEngines(t, p.deb)
	// The kernel's settings are read-only in the machine, and Docker would switch IPv6 off.
	m.run(`mkdir -p /etc/systemd/system/docker.service.d
		printf '[Service]\nEnvironment=DOCKER_ALLOW_IPV6_ON_IPV4_INTERFACE=1\n' >/etc/systemd/system/docker.service.d/test.conf
		systemctl daemon-reload; systemctl restart docker`)
	m.run("dpkg --install " + inside(p.deb))
	m.settled()
	m.run(builderImage)
	const capabilities = "systemctl show --property=AmbientCapabilities --value sidemirror.service"
	m.step("guests are served at the bridge's address", func(t testing.TB) {
		m.run(`printf '[guests]\nnetworks = ["docker0"]\n' >/etc/sidemirror/config.toml`)
		m.eventually("status lists the address", func() error {
			if out := m.status(""); !strings.Contains(out, "served at 172.17.0.1:305") {
				return fmt.Errorf("status prints\n%s", out)
			}
			return nil
		})
		if out := m.run(capabilities); strings.TrimSpace(out) != "cap_net_bind_service" {
			t.Errorf("the service has %q", out)
		}
	})
	build := func(t testing.TB, builder, repository string) {
		t.Helper()
		net.public.Push(m.t, repository, "v1", shape(1<<16))
		m.run(`set -e; d=$(mktemp -d); cd $d; printf 'FROM docker.io/` + repository + `:v1\nCOPY Dockerfile /\n' >Dockerfile
			timeout 120 docker buildx build --builder ` + builder + ` --progress plain --output type=oci,dest=$d/out.tar . 2>&1; rm -r $d`)
	}
	m.step("a builder that is created after setup-buildx", func(t testing.TB) {
		m.run("sidemirror setup-buildx && docker buildx create --name ours --driver docker-container --driver-opt network=bridge")
		build(t, "ours", "acme/built")
		if ours, direct := net.visits(hub, "acme/built"); ours < 3 || direct != 0 {
			t.Errorf("the registry saw %d requests of sidemirror's and %d of the builder's own", ours, direct)
		}
	})
	m.step("a private image that this host's login gets", func(t testing.TB) {
		m.login(net)
		m.through(net, "of-the-host")
		const private = "alice/of-the-host-docker"
		before := m.served("docker.io", private)
		// The builder then asks the registry itself, which it cannot reach here.
		out, err := m.try(`d=$(mktemp -d); cd $d; printf 'FROM docker.io/` + private + `:v1\nCOPY Dockerfile /\n' >Dockerfile
			timeout 20 docker buildx build --builder ours --progress plain --output type=oci,dest=$d/out.tar . 2>&1`)
		if after := m.served("docker.io", private); err == nil || after != before {
			t.Errorf("a guest was served %d times:\n%s", after-before, out)
		}
		refused := 0
		for _, line := range m.journal("sidemirror.service") {
			if field(line, "repository") == private && field(line, "status") == "401" {
				refused++
			}
		}
		if refused == 0 {
			t.Error("the guest did not ask for it")
		}
	})
	m.step("undone", func(t testing.TB) {
		m.run("docker buildx rm ours; sidemirror setup-buildx --undo; echo >/etc/sidemirror/config.toml")
		m.eventually("the capability is gone", func() error {
			if out := strings.TrimSpace(m.run(capabilities)); out != "" {
				return fmt.Errorf("the service has %q", out)
			}
			return nil
		})
		if out := m.run("find ~/.docker/buildx/buildkitd.default.toml /etc/systemd/system/sidemirror.service.d -type f 2>/dev/null || true"); out != "" {
			t.Errorf("files are left:\n%s", out)
		}
	})
}
