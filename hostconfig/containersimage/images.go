package containersimage

import (
	"context"
	"errors"
	"os"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

// storage is where podman and buildah keep root's images. They make it when they first run.
const storage = "/var/lib/containers/storage"

// Images are the images of root's podman, buildah and skopeo.
type Images struct {
	// Run runs one of the host's programs.
	Run func(ctx context.Context, program string, args ...string) error

	host *engine.Host
}

// ImagesOf returns the images of podman, buildah and skopeo on a host, each of which is run by run.
func ImagesOf(h *engine.Host, run func(ctx context.Context, program string, args ...string) error) Images {
	return Images{Run: run, host: h}
}

// Pull pulls an image by podman or buildah if root has used it before, and else by skopeo into a
// folder that is removed again. A first run of podman or buildah would leave a storage behind.
func (i Images) Pull(ctx context.Context, reference string) error {
	if program := i.storing(); program != "" {
		return i.Run(ctx, program, "pull", "--quiet", reference)
	}
	program := i.host.Program(skopeo.name)
	if program == "" {
		return errors.ErrUnsupported
	}
	folder, err := os.MkdirTemp("", "sidemirror-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }() // it is below the folder of temporary files
	return i.Run(ctx, program, "copy", "--quiet", "docker://"+reference, "dir:"+folder)
}

// Remove removes an image that was pulled.
func (i Images) Remove(ctx context.Context, reference string) error {
	if program := i.storing(); program != "" {
		return i.Run(ctx, program, "rmi", reference)
	}
	return nil
}

// storing returns the program that keeps images, "" if root has none.
func (i Images) storing() string {
	if !i.host.Tree.IsDir(storage) {
		return ""
	}
	if program := i.host.Program(podman.name); program != "" {
		return program
	}
	return i.host.Program(buildah.name)
}
