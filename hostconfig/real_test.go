package hostconfig

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/containerd"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/process"
)

// realContainerd starts the containerd of this machine in folders of its own, with registry
// for the section of CRI's registries and more at the file's top. It returns its socket.
func realContainerd(t *testing.T, more, registry string) string {
	t.Helper()
	program, err := exec.LookPath("containerd")
	if os.Geteuid() != 0 || err != nil {
		t.Skip("needs root and a containerd; test/setup.sh installs one")
	}
	dir, err := os.MkdirTemp("", "hostconfig-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	socket, config := filepath.Join(dir, "c.sock"), filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\n%s\n[grpc]\naddress = %q\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = %q\n%s\n%s\n",
		dir+"/root", dir+"/state", more, socket, dir+"/opt", criV2, registry)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	cmd := exec.Command(program, "--config", config)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(output.String()[max(0, output.Len()-4096):])
		}
	})
	for range 600 {
		if conn, err := net.Dial("unix", socket); err == nil {
			_ = conn.Close()
			return socket
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("containerd does not listen")
	return ""
}

func TestARealContainerdIsAsked(t *testing.T) {
	for name, test := range map[string]struct{ more, registry, warned string }{
		"config_path": {"", `config_path = "CERTS"`, ""},
		"empty":       {"", `config_path = ""`, "did not read the hosts.toml file"},
		"another":     {"", `config_path = "/nonexistent"`, "did not read the hosts.toml file"},
		"CRI off":     {`disabled_plugins = ["io.containerd.grpc.v1.cri"]`, "", "CRI service does not run: unknown service"},
	} {
		t.Run(name, func(t *testing.T) {
			h, fake := askedHost(t)
			certs := h.path("/srv/hosts")
			at := realContainerd(t, test.more, strings.Replace(test.registry, "CERTS", certs, 1))
			real := containerd.Connect(nil, process.Process{Args: []string{"containerd", "--address", at}}, nil)
			fake.pull = func(ctx context.Context, _ ask, reference string) error {
				return real.(live.Images).Pull(ctx, reference)
			}
			before := h.snapshot(t)
			began := time.Now()
			result, err := h.try(t, containerdOnly("r.example"))
			t.Logf("%+v in %v", result, time.Since(began))
			if err != nil || (len(result.Probed) == 1) != (test.warned == "") || (len(result.Warnings) == 1) != (test.warned != "") {
				t.Errorf("%+v, %v", result, err)
			}
			contains(t, warnings(result), test.warned)
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}
