package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/process"
)

// otherHost is a host with engines, to which docker.example.com leads here, and which trusts an
// authority.
type otherHost struct {
	r          *rig
	dir        string
	hosts, env string
}

func newOtherHost(t *testing.T, r *rig, root []byte) *otherHost {
	t.Helper()
	engine.NeedRoot(t)
	dir, err := os.MkdirTemp("", "sm-site-") // a socket in it may not have a long path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("the engine left something behind: %v", err)
		}
	})
	h := &otherHost{r: r, dir: dir, hosts: filepath.Join(dir, "hosts"), env: "SSL_CERT_FILE=" + filepath.Join(dir, "root.pem")}
	write(t, h.hosts, []byte("127.0.0.1 localhost\n"+gateway+" "+hubName+" "+ghcrName+"\n"))
	write(t, filepath.Join(dir, "root.pem"), root)
	if err := os.Mkdir(filepath.Join(dir, ".docker"), 0o700); err != nil {
		t.Fatal(err)
	}
	// With a login in its file, docker does not store others in a credential helper.
	write(t, filepath.Join(dir, ".docker/config.json"), []byte(`{"auths": {"other.example.com": {"auth": "YTpi"}}}`))
	return h
}

// command returns a command line on that host.
func (h *otherHost) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	words := slices.Concat(h.r.guest.Command(), []string{"sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, h.hosts, process.Path(h.r.t, name)}, args)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + h.dir, h.env}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}

// start starts a daemon on that host.
func (h *otherHost) start(socket, name string, args ...string) {
	h.r.t.Helper()
	process.Start(h.r.t, name, h.command(context.WithoutCancel(h.r.t.Context()), name, args...), func(string) error {
		info, err := os.Stat(socket)
		if err == nil && info.Mode()&os.ModeSocket == 0 {
			err = errors.New("no socket")
		}
		return err
	})
}

func (h *otherHost) run(name string, args ...string) error {
	out, err := h.command(h.r.t.Context(), name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func TestEnginesOfAnotherHostPullOverHTTPS(t *testing.T) {
	p := startPebble(t, long, false)
	r := start(t, acme(p))
	r.issued(p)
	h := newOtherHost(t, r, p.Root())

	socket := filepath.Join(h.dir, "d.sock")
	config := filepath.Join(h.dir, "daemon.json")
	write(t, config, []byte("{}"))
	h.start(socket, "dockerd", "--config-file", config, "--data-root", filepath.Join(h.dir, "root"), "--exec-root", filepath.Join(h.dir, "exec"),
		"--pidfile", filepath.Join(h.dir, "d.pid"), "-H", "unix://"+socket, "--iptables=false", "--ip6tables=false", "--bridge=none")
	r.Eventually("dockerd responds", func() bool { return h.run("docker", "-H", "unix://"+socket, "version") == nil })
	for _, reference := range []string{hubName + "/library/alpine", hubName + "/alpine"} {
		if err := h.run("docker", "-H", "unix://"+socket, "pull", "--quiet", reference); err != nil {
			t.Error(err)
		}
	}
	if err := h.run("docker", "-H", "unix://"+socket, "pull", "--quiet", hubName+"/library/private"); err == nil {
		t.Error("docker pulls a private image without a login")
	}
	if err := h.run("docker", "-H", "unix://"+socket, "login", "-u", user, "-p", password, hubName); err != nil {
		t.Error(err)
	}
	if err := h.run("docker", "-H", "unix://"+socket, "pull", "--quiet", hubName+"/library/private"); err != nil {
		t.Errorf("with the visitor's own login: %v", err)
	}

	at := filepath.Join(h.dir, "c.sock")
	h.start(at, "containerd", "--address", at, "--root", filepath.Join(h.dir, "c-root"), "--state", filepath.Join(h.dir, "c-state"))
	if err := h.run("ctr", "--address", at, "images", "pull", "--snapshotter", "native", hubName+"/library/alpine:latest"); err != nil {
		t.Error(err)
	}
	if n := strings.Count(r.Log(), "repository=library/alpine"); n < 3 {
		t.Errorf("sidemirror was asked for the image %d times", n)
	}
}
