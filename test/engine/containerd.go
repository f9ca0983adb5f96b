package engine

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/process"
)

// Containerd is a running containerd with the CRI plugin.
type Containerd struct {
	// Content is the folder that holds the blobs that it has pulled.
	Content string

	// Socket is the path of its API's.
	Socket string

	certs, ctr string
}

// StartContainerd runs containerd until the end of the test. certs is its folder
// of hosts.toml files, for CRI (config_path) and for ctr (--hosts-dir) alike.
func StartContainerd(t testing.TB, certs string) *Containerd {
	t.Helper()
	NeedRoot(t)
	dir := folder(t, "containerd")
	c := &Containerd{
		Content: filepath.Join(dir, "root", "io.containerd.content.v1.content", "blobs"),
		certs:   certs,
		Socket:  filepath.Join(dir, "c.sock"),
		ctr:     process.Path(t, "ctr"),
	}
	// Version 2 is read by 1.6 to 2.4. The opt plugin would make /opt/containerd.
	config := write(t, dir, "config.toml", fmt.Sprintf(`version = 2
root = %q
state = %q
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = %q
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = %q
  conf_dir = %q
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), c.Socket, filepath.Join(dir, "opt"),
		certs, filepath.Join(dir, "cni"), filepath.Join(dir, "cni")))
	cmd := exec.Command(process.Path(t, "containerd"), "--config", config)
	cmd.Env = []string{path}
	ownMounts(cmd, nil)
	process.Start(t, "containerd", cmd, func(output string) error {
		if !strings.Contains(output, "containerd successfully booted") {
			return fmt.Errorf("it has not booted")
		}
		return awaitSocket(c.Socket)
	})
	return c
}

// Pull pulls by `ctr images pull`; user is "name:password" or empty.
func (c *Containerd) Pull(ctx context.Context, reference, user string) error {
	args := []string{"--address", c.Socket, "images", "pull", "--hosts-dir", c.certs}
	if user != "" {
		args = append(args, "--user", user)
	}
	_, err := process.Run(ctx, nil, c.ctr, append(args, reference)...)
	return err
}

// Run runs a pulled image's program and returns what it prints.
func (c *Containerd) Run(ctx context.Context, reference string) (string, error) {
	return process.Run(ctx, nil, c.ctr, "--address", c.Socket, "run", "--rm", reference, "sidemirror-test")
}
