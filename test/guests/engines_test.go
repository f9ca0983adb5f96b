package guests

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/quirky"
)

const searchPath = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

// folder makes a folder for an engine. A socket in it may not have a long path.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sm-guest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("the engine left something behind: %v", err)
		}
	})
	return dir
}

// start runs a daemon in the guest, with mounts of its own, until its socket is there.
func (r *rig) start(socket, name string, args ...string) {
	r.t.Helper()
	words := slices.Concat(r.guest.Command(), []string{process.Path(r.t, name)}, args)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = []string{searchPath, "HOME=" + filepath.Dir(socket)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	process.Start(r.t, name, cmd, func(string) error {
		info, err := os.Stat(socket)
		if err == nil && info.Mode()&os.ModeSocket == 0 {
			err = errors.New("no socket")
		}
		return err
	})
}

// startDocker starts a dockerd in the guest, as Docker in Docker is started, and returns what runs the
// client.
func (r *rig) startDocker() func(ctx context.Context, args ...string) (string, error) {
	engine.NeedRoot(r.t)
	dir := folder(r.t)
	socket := filepath.Join(dir, "d.sock")
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.start(socket, "dockerd", "--config-file", config, "--registry-mirror", "http://"+at, "--data-root", filepath.Join(dir, "root"),
		"--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "d.pid"), "-H", "unix://"+socket,
		"--iptables=false", "--ip6tables=false", "--bridge=none")
	env := []string{"DOCKER_HOST=unix://" + socket, "DOCKER_CONFIG=" + filepath.Join(dir, "client")}
	docker := process.Path(r.t, "docker")
	run := func(ctx context.Context, args ...string) (string, error) {
		return process.Run(ctx, env, docker, args...)
	}
	r.await("dockerd responds", func() bool {
		_, err := run(r.t.Context(), "version")
		return err == nil
	})
	return run
}

func TestDockerInDockerPullsThroughTheBridge(t *testing.T) {
	r := newRig(t, false)
	docker := r.startDocker()
	if out, err := docker(t.Context(), "pull", "--quiet", public+":v1"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(r.sidemirror.Log(), "repository="+public); n == 0 {
		t.Errorf("sidemirror was not asked:\n%s", r.sidemirror.Log())
	}
	// The login of this host can get the private image.
	if own := r.sidemirror.Get("/v2/"+private+"/manifests/v1?ns=docker.io", nil); own.Status != 200 {
		t.Fatalf("the host's engine gets %d: %s", own.Status, own.Body)
	}
	if out, err := docker(t.Context(), "pull", "--quiet", private+":v1"); err == nil {
		t.Errorf("a guest's docker pulls a private image:\n%s", out)
	}
}

// A bridge of the same name and address is another interface, over which the connections of the one
// before do not go on.
func TestDockerPullsOnWhenTheBridgeVanishesAndReturns(t *testing.T) {
	half, goOn := make(chan struct{}), make(chan struct{})
	r := newRigWith(t, false, quirky.Options{Intercept: stopHalfway(half, goOn)})
	docker := r.startDocker()
	pulled := make(chan error, 1)
	go func() {
		out, err := docker(t.Context(), "pull", "--quiet", public+":v1")
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		pulled <- err
	}()
	<-half
	r.bridge.Down()
	r.await("the listener is closed", func() bool { return strings.Contains(r.sidemirror.Log(), "guests are not served there any more") })
	r.bridge.Up()
	r.guest.Plug()
	close(goOn)
	if err := <-pulled; err != nil {
		t.Error(err)
	}
}

// stopHalfway sends half of the layer when it is first asked for, says so, and sends the rest
// when it may go on.
func stopHalfway(half chan<- struct{}, goOn <-chan struct{}) func(quirky.Part, http.ResponseWriter, *http.Request) bool {
	layer := image.Blobs[1]
	var once sync.Once
	return func(_ quirky.Part, w http.ResponseWriter, q *http.Request) bool {
		if q.Method != http.MethodGet || !strings.HasSuffix(q.URL.Path, layer.Digest.String()) {
			return false
		}
		first := false
		once.Do(func() { first = true })
		if !first {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(layer.Bytes)))
		_, _ = w.Write(layer.Bytes[:len(layer.Bytes)/2])
		_ = http.NewResponseController(w).Flush()
		close(half)
		<-goOn
		_, _ = w.Write(layer.Bytes[len(layer.Bytes)/2:])
		return true
	}
}

func TestBuildkitdBuildsWithWhatSetupBuildxWrites(t *testing.T) {
	engine.NeedRoot(t)
	r := newRig(t, false)
	home := folder(t)
	if out, err := r.setup(home, "setup-buildx", "--bridge", r.bridge.Name); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	bin := filepath.Join(engine.BuildKit.Get(t), "usr/bin")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	dir := folder(t)
	socket := filepath.Join(dir, "b.sock")
	r.start(socket, "buildkitd", "--config", filepath.Join(home, ".docker/buildx/buildkitd.default.toml"), "--addr", "unix://"+socket,
		"--root", filepath.Join(dir, "root"), "--oci-worker-snapshotter", "native", "--containerd-worker=false")
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(fmt.Sprintf("FROM %s:v1\nCOPY Dockerfile /\n", public)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := process.Run(t.Context(), nil, process.Path(t, "buildctl"), "--addr", "unix://"+socket, "build", "--frontend", "dockerfile.v0",
		"--local", "context="+dir, "--local", "dockerfile="+dir, "--output", "type=oci,dest="+filepath.Join(dir, "out.tar"))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(r.sidemirror.Log(), "repository="+public); n == 0 {
		t.Error("the build did not pull through sidemirror")
	}
}
