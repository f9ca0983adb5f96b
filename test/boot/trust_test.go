package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// asked is how often each process of the test asks for the private image.
const asked = 3

// caller is a process that asks sidemirror for a private image.
type caller struct {
	name   string
	script string // with GET for the command
	group  string // the control group to run it in; "" for a session of root's
}

// trustedCallers are processes that engines and administrators have; all get the image.
var trustedCallers = []caller{
	{name: "root's session", script: "GET"},
	{name: "root by sudo in another user's session", script: "GET", group: "user.slice/user-1000.slice/session-7.scope"},
	{name: "root by sudo in another user's terminal", script: "GET", group: "user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope"},
	{name: "ssh without a session", script: "GET", group: "system.slice/ssh.service"},
	{name: "a unit of k3s", script: "systemd-run --quiet --wait --pipe --unit=k3s.service GET"},
	{name: "the kubelet in a slice of its own", script: "systemd-run --quiet --wait --pipe --slice=podruntime.slice --unit=kubelet.service GET"},
	{name: "a job of cron's", script: "systemd-run --quiet --wait --pipe --unit=cron.service GET"},
}

const fromHost = "--volume=/bin:/bin:ro --volume=/usr:/usr:ro --volume=/lib:/lib:ro --volume=/lib64:/lib64:ro "

// untrustedCallers get nothing that needs a login.
var untrustedCallers = []caller{
	{name: "another user", script: "setpriv --reuid=" + userName + " --regid=" + userName + " --clear-groups GET"},
	{name: "systemd-run", script: "systemd-run --quiet --wait --pipe GET"},
	{name: "a unit that is not listed", script: "systemd-run --quiet --wait --pipe --unit=ci.service GET"},
	{name: "a unit inside a unit that is listed", script: "GET", group: "system.slice/docker.service/inner"},
	{name: "no unit", script: "GET", group: "."},
	{name: "a container on the host's network", script: "docker run --rm --network=host IMAGE GET"},
	{name: "a container in all of the host's namespaces", script: "docker run --rm --network=host --cgroupns=host --pid=host --ipc=host --uts=host --userns=host IMAGE GET"},
	{name: "a container in a slice of users", script: "docker run --rm --network=host --cgroup-parent=user-9.slice IMAGE GET"},
	{name: "docker exec", script: "docker run --detach --name=exec --network=host IMAGE /usr/local/bin/dockerd >/dev/null && docker exec exec GET; docker rm --force exec >/dev/null"},
	{name: "a container that makes a group with a unit's name", script: "docker run --rm --network=host --cap-add=SYS_ADMIN --security-opt=seccomp=unconfined " + fromHost +
		`IMAGE /bin/sh -c 'mount -o remount,rw /sys/fs/cgroup && mkdir -p /sys/fs/cgroup/system.slice/docker.service && echo $$ >/sys/fs/cgroup/system.slice/docker.service/cgroup.procs && GET'`},
	{name: "a build on the host's network", script: `mkdir -p /srv/build && printf 'FROM IMAGE\nRUN ["/usr/local/bin/localuser","get","PATH","3"]\n' >/srv/build/Dockerfile && ` +
		"DOCKER_BUILDKIT=0 docker build --no-cache --network=host /srv/build | grep -x '[0-9][0-9][0-9]'"},
	{name: "containerd's container on the host's network", script: "ctr run $(ctr run --help | grep -q cpu-shares && echo --cpu-shares=0) --rm --net-host IMAGE trust-$$ GET"},
}

// With root's user id alone a container on the host's network would be an engine.
func TestContainersAndOtherUnitsNeverUseTheLogins(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			p := built(t)
			m, net := freshHost(t, s, p.deb)
			m.run("dpkg --install " + inside(p.deb))
			m.settled()
			m.write("/etc/sidemirror/config.toml", "[cache]\nmin_free = \"0B\"\n", 0o644) // the disk is that of all tests
			m.login(net)
			m.addUser()
			m.containerImage()
			net.private.Push(t, "alice/trust", "v1", shape(1<<16))

			m.step("engines", func(testing.TB) { m.through(net, "trust") })
			m.step("callers", func(testing.TB) { m.callers() })
			m.step("ctr and sidemirror pull", func(t testing.TB) {
				m.run("ctr images pull --hosts-dir=/etc/containerd/certs.d docker.io/alice/trust:v1 >/dev/null")
				m.run("sidemirror pull docker.io/alice/trust:v1")
				if ours, direct := net.visits(hub, "alice/trust"); ours == 0 || direct != 0 {
					t.Errorf("the registry saw %d requests of ours, %d of others", ours, direct)
				}
			})
			m.step("another network", func(t testing.TB) {
				if got := m.asks(caller{script: "docker run --rm --network=none IMAGE GET"}); !same(got, "000") {
					t.Errorf("a container with a network of its own gets %q", got)
				}
			})
			m.step("a unit that is added", func(t testing.TB) {
				m.trustAsStatusSays(t)
				if got := m.asks(caller{script: "systemd-run --quiet --wait --pipe --unit=ci.service GET"}); !same(got, "200") {
					t.Errorf("it gets %q", got)
				}
			})
		})
	}
}

// containerImage imports the image of the test's program into both engines, as fakeImage.
func (m *machine) containerImage() {
	m.t.Helper()
	m.run("touch /etc/resolv.conf") // ctr wants it
	m.run("mkdir -p /srv/image/usr/local/bin && cp " + localuser + " /srv/image" + localuser + " && cp " + localuser + " /srv/image/usr/local/bin/dockerd && " +
		"tar --directory=/srv/image --create . | docker import - " + fakeImage + " && docker save " + fakeImage + " | ctr images import -")
}

// callers has each of the callers ask, and counts the uses of a login in the access log.
func (m *machine) callers() {
	m.t.Helper()
	for _, c := range trustedCallers {
		if got := m.asks(c); !same(got, "200") {
			m.t.Errorf("%s: gets %q", c.name, got)
		}
	}
	if n := len(m.uses()); n < asked*len(trustedCallers) {
		m.t.Fatalf("the log has %d uses of a login by trusted callers", n)
	}
	m.refuse(untrustedCallers)
}

// refuse has each of the callers ask, and fails the test if one gets the image or a login was used.
func (m *machine) refuse(callers []caller) {
	m.t.Helper()
	before := len(m.uses())
	for _, c := range callers {
		if got := m.asks(c); !same(got, "401") {
			m.t.Errorf("%s: gets %q", c.name, got)
		}
	}
	uses := m.uses()
	for _, line := range uses[before:] {
		m.t.Errorf("a login was used: %s", line)
	}
	m.t.Logf("%d uses before, %d by %d callers that are not trusted", before, len(uses)-before, len(callers))
}

// uses returns the lines of the access log about the private image for which a login was used.
func (m *machine) uses() (lines []string) {
	m.t.Helper()
	for _, line := range m.journal("sidemirror.service") {
		if field(line, "repository") == "alice/trust" && (field(line, "credential") != "" || field(line, "status") == "200") {
			lines = append(lines, line)
		}
	}
	return lines
}

// asks has a caller ask, and returns the statuses that it gets.
func (m *machine) asks(c caller) []string {
	m.t.Helper()
	const path = "/v2/alice/trust/manifests/v1?ns=docker.io"
	script := strings.NewReplacer("GET", fmt.Sprintf("%s get '%s' %d", localuser, path, asked), "PATH", path, "IMAGE", fakeImage).Replace(c.script)
	group := c.group
	if group == "" {
		group = rootSession
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd, opened := m.shellIn(ctx, group, script)
	defer opened.Close()
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		m.t.Errorf("%s: %v\n%s%s", c.name, err, out.String(), problems.String())
	}
	return strings.Fields(out.String())
}

// same reports whether all answers have the status.
func same(got []string, status string) bool {
	return len(got) == asked && !slices.ContainsFunc(got, func(s string) bool { return s != status })
}

// trustAsStatusSays waits until status lists the unit, and runs the command that it prints.
func (m *machine) trustAsStatusSays(t testing.TB) {
	t.Helper()
	command := ""
	m.eventually("status lists the callers", func() error {
		status := m.status("")
		for _, want := range []string{"/system.slice/ci.service: 3 requests", "in a container, /system.slice/docker-", `user "` + userName + `"`} {
			if !strings.Contains(status, want) {
				return fmt.Errorf("no %q in\n%s", want, status)
			}
		}
		for line := range strings.Lines(status) {
			if _, c, found := strings.Cut(line, "to trust it: "); found && strings.Contains(c, "ci.service") {
				command = strings.ReplaceAll(c, "sudo ", "") // the machine has none
			}
		}
		return nil
	})
	m.run(command)
	m.eventually("the configuration is in force", func() error {
		if strings.Contains(m.status(""), "/system.slice/ci.service") {
			return errors.New("status lists it still")
		}
		return nil
	})
	if mode := m.run("stat --format=%a:%U /run/sidemirror/state.json"); mode != "600:sidemirror\n" {
		t.Errorf("the state is %s", mode)
	}
}

// podman's callers, in a suite that has it. IMAGE is imported into podman's own storage.
var podmanCallers = []caller{
	{name: "podman, on the host's network", script: "podman run --rm --network=host IMAGE GET"},
	{name: "podman without systemd's groups", script: "podman --cgroup-manager=cgroupfs run --rm --network=host IMAGE GET"},
	{name: "podman in a unit", script: "systemd-run --quiet --wait --pipe --property=Delegate=yes --unit=web.service podman run --cgroups=split --rm --network=host IMAGE GET"},
	{name: "podman exec", script: "podman run --detach --name=exec --network=host IMAGE /usr/local/bin/dockerd >/dev/null && podman exec exec GET; podman rm --force --time=0 exec >/dev/null"},
}

func TestPodmansContainersNeverUseTheLogins(t *testing.T) {
	t.Parallel()
	p := built(t)
	m, net := freshHost(t, people, p.deb)
	m.run("dpkg --install " + inside(p.deb))
	m.settled()
	m.login(net)
	m.addUser()
	m.containerImage()
	m.write("/etc/containers/storage.conf", "[storage]\ndriver = \"vfs\"\n", 0o644) // no overlay lies on another
	m.run("tar --directory=/srv/image --create . | podman import --quiet - " + fakeImage)
	net.private.Push(t, "alice/trust", "v1", shape(1<<16))
	m.refuse(podmanCallers)
	// podman itself is trusted in a session.
	m.run("podman pull --quiet docker.io/alice/trust:v1")
	if ours, direct := net.visits(hub, "alice/trust"); ours == 0 || direct != 0 {
		t.Errorf("the registry saw %d requests of ours, %d of others", ours, direct)
	}
}
