// Package cri pulls and removes images as the kubelet does.
package cri

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pull pulls by the PullImage of the CRI service at a unix socket, with the pull
// secret's user and password if there is one, and returns the references with
// digests by which the service then knows the image.
func Pull(ctx context.Context, socket, reference, user, password string) ([]string, error) {
	if user == "" {
		return PullWith(ctx, socket, reference, nil)
	}
	return PullWith(ctx, socket, reference, &runtime.AuthConfig{Username: user, Password: password})
}

// PullWith is Pull with any pull secret; nil is none.
func PullWith(ctx context.Context, socket, reference string, secret *runtime.AuthConfig) ([]string, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	request := &runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: reference}, Auth: secret}
	images := runtime.NewImageServiceClient(conn)
	if _, err := images.PullImage(ctx, request); err != nil {
		return nil, fmt.Errorf("pulling %s by CRI: %w", reference, err)
	}
	status, err := images.ImageStatus(ctx, &runtime.ImageStatusRequest{Image: request.Image})
	if err != nil {
		return nil, fmt.Errorf("asking CRI for %s: %w", reference, err)
	}
	return status.GetImage().GetRepoDigests(), nil
}

// Remove removes an image, so that the next pull fetches all of it again.
func Remove(ctx context.Context, socket, reference string) error {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	request := &runtime.RemoveImageRequest{Image: &runtime.ImageSpec{Image: reference}}
	if _, err := runtime.NewImageServiceClient(conn).RemoveImage(ctx, request); err != nil {
		return fmt.Errorf("removing %s by CRI: %w", reference, err)
	}
	return nil
}
