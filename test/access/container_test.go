package access

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// podman is podman with a storage of the test's own, and an image of one program.
type podman struct {
	t       *testing.T
	program string // asks for a URL and prints the status
	env     []string
}

const containerImage = "localhost/client:test"

func newPodman(t *testing.T) *podman {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root has containers whose root is the host's")
	}
	dir := t.TempDir()
	p := &podman{t: t, program: filepath.Join(dir, "image/client")}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", p.program, "../boot/localuser")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	conf := filepath.Join(dir, "storage.conf")
	text := fmt.Sprintf("[storage]\ndriver = \"vfs\"\nrunroot = \"%[1]s/run\"\ngraphroot = \"%[1]s/store\"\n", dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+conf)
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", filepath.Dir(p.program), "-cf", dir+"/image.tar", ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	p.run("import", "--quiet", dir+"/image.tar", containerImage)
	return p
}

// run runs podman and returns what it prints.
func (p *podman) run(args ...string) string {
	p.t.Helper()
	args = append([]string{"--cgroup-manager=cgroupfs", "--events-backend=none"}, args...)
	cmd := exec.CommandContext(p.t.Context(), process.Path(p.t, "podman"), args...)
	cmd.Env = p.env
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("podman %q: %v\n%s", args, err, problems.String())
	}
	return strings.TrimSpace(string(out))
}

// Also on hosts where the kernel does not tell units apart, a container has a control group of its own.
func TestRootInAContainerOnTheHostsNetworkUsesNoLogin(t *testing.T) {
	p := newPodman(t)
	up := quirky.New(t, private("Bearer"))
	up.Add(repo, "v1", image)
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: up.Host(), Upstreams: []string{up.URL()}}},
		Logins:     map[string]string{up.Host(): user + ":" + password},
	})
	url := s.URL() + of(up.Host(), "manifests/v1")
	if out, err := exec.CommandContext(t.Context(), p.program, "get", url, "1").CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "200" {
		t.Fatalf("the same program outside a container: %v, %s", err, out)
	}
	// The limits are not above those of the test.
	got := p.run("run", "--rm", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", containerImage, "/client", "get", url, "3")
	if got != "401\n401\n401" {
		t.Errorf("root in a container gets %q", got)
	}
	if n := strings.Count(s.Log(), "credential="); n != 1 {
		t.Errorf("a login was used %d times, and once outside the container:\n%s", n, s.Log())
	}
}
