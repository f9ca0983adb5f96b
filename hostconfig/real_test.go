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
)

// realContainerd starts the containerd of this machine in folders of its own, with registry
// for the section of CRI's registries and more at the file's top. It answers with its socket.
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

// asking is a host whose containerd is a real one, elsewhere.
type asking struct {
	fakeDockerd
	socket string
}

func (a *asking) Pull(ctx context.Context, q ask, reference string) error {
	q.socket = a.socket
	return system{}.Pull(ctx, q, reference)
}

func TestARealContainerdIsAsked(t *testing.T) {
	for name, test := range map[string]struct{ more, registry, warned string }{
		"config_path": {"", `config_path = "CERTS"`, ""},
		"empty":       {"", `config_path = ""`, "did not come to us"},
		"another":     {"", `config_path = "/nonexistent"`, "did not come to us"},
		"CRI off":     {`disabled_plugins = ["io.containerd.grpc.v1.cri"]`, "", "CRI service does not run: unknown service"},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := askedHost(t)
			certs := h.path("/srv/hosts")
			socket := realContainerd(t, test.more, strings.Replace(test.registry, "CERTS", certs, 1))
			h.signaler = &asking{fakeDockerd: fakeDockerd{host: h}, socket: socket}
			before := h.snapshot(t)
			began := time.Now()
			result, err := h.try(t, containerdOnly("r.example"))
			t.Logf("%+v in %v", result, time.Since(began))
			if err != nil || (len(result.Asked) == 1) != (test.warned == "") || (len(result.Warnings) == 1) != (test.warned != "") {
				t.Errorf("%+v, %v", result, err)
			}
			contains(t, strings.Join(result.Warnings, "\n"), test.warned)
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}

// A socket whose owner lives in another network says nothing: its loopback is not ours.
func TestAnEngineInAnotherNetworkIsNotAsked(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make a network")
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), listenerSocket+"="+dir+"/s")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	var conn net.Conn
	var err error
	for range 600 {
		if conn, err = net.Dial("unix", dir+"/s"); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if sameNetwork(conn.(*net.UnixConn)) {
		t.Error("taken for ours")
	}
	l, err := net.Listen("unix", dir+"/ours")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err := net.Dial("unix", dir+"/ours")
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if !sameNetwork(ours.(*net.UnixConn)) {
		t.Error("our own is not taken for ours")
	}
}

// listenerSocket names the socket that this test binary, run once more, listens at.
const listenerSocket = "SIDEMIRROR_TEST_LISTEN"

func listenForEver() int {
	l, err := net.Listen("unix", os.Getenv(listenerSocket))
	for err == nil {
		_, err = l.Accept()
	}
	return 3
}
