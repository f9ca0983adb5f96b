package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sidemirror/sidemirror/test/process"
)

// Docker is a running dockerd with a containerd of its own.
type Docker struct {
	socket, docker string
}

// DockerOptions say how a dockerd is started.
type DockerOptions struct {
	// Config is the path of its daemon.json.
	Config string

	// Hosts, if not empty, is the content of its /etc/hosts.
	Hosts string

	// CA, if not empty, is the path of the PEM authorities that it trusts in place
	// of the system's.
	CA string
}

// Image is what dockerd says of an image. Digests are "sha256:…".
type Image struct {
	// ID is the digest of the configuration on the graph-driver stores.
	ID string `json:"Id"`

	// RepoDigests hold the digest of what was pulled: "alice/app@sha256:…".
	RepoDigests []string

	// RootFS names the unpacked layers.
	RootFS struct{ Layers []string }
}

// StartDocker runs dockerd until the end of the test.
func StartDocker(t testing.TB, o DockerOptions) *Docker {
	t.Helper()
	containerd := StartContainerd(t, t.TempDir())
	dir := folder(t, "docker")
	d := &Docker{socket: filepath.Join(dir, "d.sock"), docker: process.Path(t, "docker")}
	cmd := exec.Command(process.Path(t, "dockerd"), "--config-file", o.Config,
		"--data-root", filepath.Join(dir, "root"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "d.pid"), "-H", "unix://"+d.socket, "--containerd", containerd.Socket,
		"--iptables=false", "--ip6tables=false", "--bridge=none")
	cmd.Env = []string{path, "HOME=" + dir}
	if o.CA != "" {
		cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+o.CA, "SSL_CERT_DIR="+t.TempDir())
	}
	over := map[string]string{}
	if o.Hosts != "" {
		over["/etc/hosts"] = write(t, dir, "hosts", o.Hosts)
	}
	ownMounts(cmd, over)
	process.Start(t, "dockerd", cmd, func(string) error {
		_, err := d.run(context.Background(), "", "version")
		return err
	})
	return d
}

func (d *Docker) run(ctx context.Context, login string, args ...string) (string, error) {
	if login == "" {
		// An empty folder, for an empty $DOCKER_CONFIG means the user's own.
		login = filepath.Join(filepath.Dir(d.socket), "client")
	}
	return process.Run(ctx, []string{"DOCKER_HOST=unix://" + d.socket, "DOCKER_CONFIG=" + login}, d.docker, args...)
}

// Pull pulls by `docker pull`. login is the folder of the client's config.json, or
// empty.
func (d *Docker) Pull(ctx context.Context, reference, login string) error {
	_, err := d.run(ctx, login, "pull", "--quiet", reference)
	return err
}

// Image returns what dockerd says of an image that it has.
func (d *Docker) Image(ctx context.Context, reference string) (Image, error) {
	out, err := d.run(ctx, "", "image", "inspect", reference)
	if err != nil {
		return Image{}, err
	}
	var images []Image
	if err := json.Unmarshal([]byte(out), &images); err != nil {
		return Image{}, fmt.Errorf("reading docker's answer about %s: %w", reference, err)
	}
	if len(images) != 1 {
		return Image{}, fmt.Errorf("docker has %d images %s", len(images), reference)
	}
	return images[0], nil
}

// Save writes an image's configuration and unpacked layers into a tar archive.
func (d *Docker) Save(ctx context.Context, reference, archive string) error {
	_, err := d.run(ctx, "", "save", "--output", archive, reference)
	return err
}
