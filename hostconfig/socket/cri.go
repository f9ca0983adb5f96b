package socket

import "context"

// Methods of the image service of the Kubernetes container runtime interface.
const (
	pullImage   = "/runtime.v1.ImageService/PullImage"
	removeImage = "/runtime.v1.ImageService/RemoveImage"
)

// PullImage makes the runtime that listens at a socket pull an image, as for a pod without a login.
func PullImage(ctx context.Context, name, reference string) error {
	return callImage(ctx, name, pullImage, reference)
}

// RemoveImage makes the runtime that listens at a socket remove an image. One that is not there is no
// error.
func RemoveImage(ctx context.Context, name, reference string) error {
	return callImage(ctx, name, removeImage, reference)
}

// callImage calls a method of which the request is an ImageSpec (1) with the name of an image (1).
func callImage(ctx context.Context, name, method, reference string) error {
	_, err := Call(ctx, Transport(name, true), method, Field(1, Field(1, []byte(reference))))
	return err
}
