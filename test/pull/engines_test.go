package pull_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
)

// engineHost is a host with engines of one age, by the names that docs/engines.md has for them.
type engineHost struct {
	age     engine.Generation
	engines []named
}

// named is one engine, or one way in which it pulls.
type named struct {
	name string
	pull func(t *testing.T, h *engine.Host, reference, digest string) error
}

// engineHosts are those to test: the oldest and the newest of each engine, or all.
func engineHosts() []engineHost {
	daemons := func(age engine.Generation, containerd, docker string) engineHost {
		return engineHost{age, []named{
			{"containerd " + containerd + ", CRI", byHostCRI}, {"containerd " + containerd + ", ctr", byHostCtr}, {"Docker " + docker, byHostDocker},
		}}
	}
	tools := func(podman, buildah, skopeo string) []named {
		return []named{{"podman " + podman, byHostPodman}, {"buildah " + buildah, byHostBuildah}, {"skopeo " + skopeo, byHostSkopeo}}
	}
	oldest := daemons(engine.Bookworm, "1.6", "20.10")
	oldest.engines = append(oldest.engines, tools("4.3", "1.28", "1.9")...) // which this Debian has itself
	hosts := []engineHost{
		oldest,
		daemons(engine.Built, "2.4", "29.7"),
		{engine.TrixieTools, tools("5.4", "1.39", "1.18")},
		{engine.BuildKit, []named{{"buildkitd 0.34", byHostBuildkit}}},
	}
	if os.Getenv("ENGINES") == "all" {
		hosts = append(hosts, daemons(engine.Trixie, "1.7", "26.1"), daemons(engine.Sid, "2.1", "28.5"))
	}
	return hosts
}

// Every engine pulls from every kind of registry, and what docs/engines.md says of it is what happens.
func TestEveryEnginePullsFromEveryKindOfRegistryAsDocumented(t *testing.T) {
	engine.NeedRoot(t)
	r := startRegistries(t)
	var rows []row
	for _, each := range engineHosts() {
		t.Run(string(each.age), func(t *testing.T) {
			h := r.newHost(t, each.age)
			apply(t, h)
			sidemirror := serve(t, h)
			start(t, h, each.age)
			for _, e := range each.engines {
				seen := row{e.name}
				for i, c := range columns {
					repository := fmt.Sprintf("%s-%d", strings.Trim(strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(e.name)), "-"), i)
					seen = append(seen, r.way(t, sidemirror, c, repository, func(reference, digest string) error { return e.pull(t, h, reference, digest) }))
				}
				rows = append(rows, seen)
			}
		})
	}
	compare(t, rows)
}

// apply has sidemirror configure a host, as "sidemirror watch" does when it starts.
func apply(t *testing.T, h *engine.Host) {
	t.Helper()
	stdout, stderr, code, err := h.Run(t.Context(), "/srv/"+filepath.Base(harness.Binary(t)), "apply")
	if err != nil || code != 0 {
		t.Fatalf("sidemirror apply: exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	t.Logf("apply:\n%s", stdout)
}

// serve starts sidemirror on a host. It knows what was found out about the engines.
func serve(t *testing.T, h *engine.Host) *process.Daemon {
	t.Helper()
	return h.Start(t, func(output string) error {
		if !strings.Contains(output, "msg=serving") {
			return errors.New("it does not serve")
		}
		return nil
	}, "/srv/"+filepath.Base(harness.Binary(t)), "serve")
}

// start starts the daemons of an age, which then have in force what was written.
func start(t *testing.T, h *engine.Host, age engine.Generation) {
	t.Helper()
	switch age {
	case engine.TrixieTools: // they have none
	case engine.BuildKit:
		h.Start(t, func(string) error {
			_, err := os.Stat(h.Path("/run/buildkit/buildkitd.sock"))
			return err
		}, "/usr/bin/buildkitd", "--oci-worker-snapshotter", "native", "--containerd-worker=false")
	default:
		h.StartContainerd(t)
		h.StartDocker(t)
	}
}

func byHostCRI(t *testing.T, h *engine.Host, reference, digest string) error {
	return h.PullCRI(t.Context(), reference+":v1", digest)
}

func byHostDocker(t *testing.T, h *engine.Host, reference, digest string) error {
	return h.PullDocker(t.Context(), strings.TrimPrefix(reference, "docker.io/"), "v1", digest)
}

func byHostCtr(t *testing.T, h *engine.Host, reference, digest string) error {
	err := onHost(t, h, "ctr images pull --hosts-dir /etc/containerd/certs.d \"$1\"", reference+":v1")
	if err != nil {
		return err
	}
	return onHost(t, h, "ctr images ls | grep -qF \"$1\"", digest)
}

func byHostPodman(t *testing.T, h *engine.Host, reference, digest string) error {
	const podman = "podman --cgroup-manager cgroupfs --events-backend none "
	return onHost(t, h, podman+"pull --quiet \"$1:v1\" && "+podman+"image exists \"$1@$2\"", reference, digest)
}

func byHostBuildah(t *testing.T, h *engine.Host, reference, digest string) error {
	return onHost(t, h, "buildah pull --quiet \"$1:v1\" && buildah images --digests | grep -F \"$2\"", reference, digest)
}

func byHostSkopeo(t *testing.T, h *engine.Host, reference, digest string) error {
	return onHost(t, h, "d=$(mktemp -d) && skopeo copy --quiet --preserve-digests \"docker://$1@$2\" dir:$d && rm -r $d", reference, digest)
}

// byHostBuildkit builds an image on that one.
func byHostBuildkit(t *testing.T, h *engine.Host, reference, digest string) error {
	const script = "d=$(mktemp -d) && printf 'FROM %s:v1@%s\\nCOPY Dockerfile /\\n' \"$1\" \"$2\" >$d/Dockerfile && " +
		"buildctl build --frontend dockerfile.v0 --local context=$d --local dockerfile=$d --output type=oci,dest=$d/out.tar"
	return onHost(t, h, script, reference, digest)
}

// onHost runs a shell script on a host, which must succeed.
func onHost(t *testing.T, h *engine.Host, script string, args ...string) error {
	t.Helper()
	stdout, stderr, code, err := h.Run(t.Context(), append([]string{"/bin/sh", "-ec", script, "sh"}, args...)...)
	if err == nil && code != 0 {
		err = errors.New("exit code " + fmt.Sprint(code) + "\n" + stdout + stderr)
	}
	return err
}
