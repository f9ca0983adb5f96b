package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/core/transfer"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

const (
	// chunk is the size of the parts of a layer that containerd fetches in parallel.
	chunk = 8 * mib

	// atOnce is how many layers, or parts of one, containerd and Docker fetch at once by default.
	atOnce = 3
)

// pullOrder has containerd's own resolver and fetcher pull from a registry, as its
// /etc/containerd/certs.d would have it. The content is checked against its digest and dropped.
type pullOrder struct {
	Server string // "http://127.0.0.1:80"
	CA     string // the authority of an https server

	// Tag is the tag of the image to pull. If it is empty, the blob Digest of Size bytes is fetched.
	Tag    string
	Digest string
	Size   int64

	// Parts, if more than 1, is how many parts of a blob are fetched in parallel.
	Parts int
}

// engineHosts writes the hosts.toml by which namespace is at o's server, below a new folder.
func (o pullOrder) engineHosts() (string, error) {
	dir, err := os.MkdirTemp("", "sidemirror-bench-certs.d-")
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("server = %q\n[host.%[1]q]\ncapabilities = [\"pull\", \"resolve\"]\n", o.Server)
	if o.CA != "" {
		text += fmt.Sprintf("ca = %q\n", o.CA)
	}
	host := filepath.Join(dir, namespace)
	err = errors.Join(os.Mkdir(host, 0o700), os.WriteFile(filepath.Join(host, "hosts.toml"), []byte(text), 0o600))
	return dir, err
}

// do pulls and returns how long it took.
func (o pullOrder) do(ctx context.Context) (_ account, err error) {
	dir, err := o.engineHosts()
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err != nil {
		return account{}, err
	}
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts: config.ConfigureHosts(ctx, config.HostOptions{HostDir: config.HostDirFromRoot(dir)}),
	})
	if o.Parts > 1 {
		with, ok := resolver.(remotes.ResolverWithOptions)
		if !ok {
			return account{}, errors.New("containerd's resolver takes no options")
		}
		with.SetOptions(transfer.WithMaxConcurrentDownloads(o.Parts), transfer.WithConcurrentLayerFetchBuffer(chunk))
	}
	start := time.Now()
	var n int64
	if o.Tag != "" {
		n, err = pullImage(ctx, resolver, namespace+"/"+repository+":"+o.Tag)
	} else {
		n, err = pullLayer(ctx, resolver, o)
	}
	return account{Seconds: time.Since(start).Seconds(), Bytes: n}, err
}

// pullLayer fetches one blob.
func pullLayer(ctx context.Context, resolver remotes.Resolver, o pullOrder) (int64, error) {
	fetcher, err := resolver.Fetcher(ctx, namespace+"/"+repository+":any")
	if err != nil {
		return 0, err
	}
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.Digest(o.Digest), Size: o.Size}
	return layer.Size, fetchAll(ctx, fetcher, layer, io.Discard)
}

// pullImage fetches an image in the order in which containerd does: it resolves the tag, and fetches
// the manifest, then the configuration and the layers.
func pullImage(ctx context.Context, resolver remotes.Resolver, reference string) (int64, error) {
	_, top, err := resolver.Resolve(ctx, reference)
	if err != nil {
		return 0, err
	}
	fetcher, err := resolver.Fetcher(ctx, reference)
	if err != nil {
		return 0, err
	}
	var text limitedBuffer
	if err := fetchAll(ctx, fetcher, top, &text); err != nil {
		return 0, err
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(text.bytes, &manifest); err != nil {
		return 0, fmt.Errorf("read the manifest: %w", err)
	}
	sum := top.Size
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(atOnce)
	for _, part := range append([]ocispec.Descriptor{manifest.Config}, manifest.Layers...) {
		sum += part.Size
		work.Go(func() error { return fetchAll(ctx, fetcher, part, io.Discard) })
	}
	return sum, work.Wait()
}

// fetchAll writes what d describes to a writer and checks it, as containerd's content store does.
func fetchAll(ctx context.Context, fetcher remotes.Fetcher, d ocispec.Descriptor, to io.Writer) error {
	from, err := fetcher.Fetch(ctx, d)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", d.Digest, err)
	}
	defer from.Close()
	verifier := d.Digest.Verifier()
	n, err := io.Copy(io.MultiWriter(verifier, to), from)
	switch {
	case err != nil:
		return fmt.Errorf("fetch %s: %w", d.Digest, err)
	case n != d.Size || !verifier.Verified():
		return fmt.Errorf("fetch %s: got %d other bytes than its %d", d.Digest, n, d.Size)
	}
	return nil
}

// limitedBuffer holds a manifest.
type limitedBuffer struct{ bytes []byte }

// Write implements [io.Writer].
func (b *limitedBuffer) Write(p []byte) (int, error) {
	const most = 4 * mib
	if len(b.bytes)+len(p) > most {
		return 0, fmt.Errorf("a manifest of more than %d bytes", most)
	}
	b.bytes = append(b.bytes, p...)
	return len(p), nil
}
