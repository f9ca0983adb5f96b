package engine

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sidemirror/sidemirror/test/process"
)

// Containerd is a running containerd with the CRI plugin.
type Containerd struct {
	// Content is the folder that holds the blobs that it has pulled.
	Content string

	certs, socket, ctr string
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
		socket:  filepath.Join(dir, "c.sock"),
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
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), c.socket, filepath.Join(dir, "opt"),
		certs, filepath.Join(dir, "cni"), filepath.Join(dir, "cni")))
	cmd := exec.Command(process.Path(t, "containerd"), "--config", config)
	cmd.Env = []string{path}
	ownMounts(cmd, nil)
	process.Start(t, "containerd", cmd, func(output string) error {
		if !strings.Contains(output, "containerd successfully booted") {
			return fmt.Errorf("it has not booted")
		}
		return awaitSocket(c.socket)
	})
	return c
}

// Pull pulls by `ctr images pull`; user is "name:password" or empty.
func (c *Containerd) Pull(ctx context.Context, reference, user string) error {
	args := []string{"--address", c.socket, "images", "pull", "--hosts-dir", c.certs}
	if user != "" {
		args = append(args, "--user", user)
	}
	_, err := process.Run(ctx, nil, c.ctr, append(args, reference)...)
	return err
}

// PullCRI pulls as the kubelet does, by the CRI's PullImage, and returns the
// digest-bearing reference that it answers.
func (c *Containerd) PullCRI(ctx context.Context, reference, user, password string) (string, error) {
	conn, err := grpc.NewClient("unix://"+c.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	request := &cri.PullImageRequest{Image: &cri.ImageSpec{Image: reference}}
	if user != "" {
		request.Auth = &cri.AuthConfig{Username: user, Password: password}
	}
	images := cri.NewImageServiceClient(conn)
	if _, err := images.PullImage(ctx, request); err != nil {
		return "", fmt.Errorf("pulling %s by CRI: %w", reference, err)
	}
	status, err := images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: request.Image})
	if err != nil {
		return "", fmt.Errorf("asking CRI for %s: %w", reference, err)
	}
	return strings.Join(status.GetImage().GetRepoDigests(), " "), nil
}

// Run runs a pulled image's program and returns what it prints.
func (c *Containerd) Run(ctx context.Context, reference string) (string, error) {
	return process.Run(ctx, nil, c.ctr, "--address", c.socket, "run", "--rm", reference, "sidemirror-test")
}
