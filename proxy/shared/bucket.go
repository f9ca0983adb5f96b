package shared

import (
	"context"
	"io"
	"net/http"

	"github.com/minio/minio-go/v7"
)

// bucket is what a store asks of its bucket. It has functions and no client: a value of the program
// leads from an interface to a Store, and the linker retains all exported methods of each type that
// such a value leads to. Those of minio's client, and what they need, are a twelfth of the program.
type bucket struct {
	get    func(ctx context.Context, key string, opts minio.GetObjectOptions) (io.ReadCloser, minio.ObjectInfo, http.Header, error)
	stat   func(ctx context.Context, key string) error
	put    func(ctx context.Context, key string, r io.Reader, size int64, opts minio.PutObjectOptions) error
	remove func(ctx context.Context, key string) error
}

// newBucket returns the bucket of that name at a host.
func newBucket(name, host string, opts *minio.Options) (bucket, error) {
	c, err := minio.NewCore(host, opts)
	if err != nil {
		return bucket{}, err
	}
	return bucket{
		get: func(ctx context.Context, key string, opts minio.GetObjectOptions) (io.ReadCloser, minio.ObjectInfo, http.Header, error) {
			return c.GetObject(ctx, name, key, opts)
		},
		stat: func(ctx context.Context, key string) error {
			_, err := c.StatObject(ctx, name, key, minio.StatObjectOptions{})
			return err
		},
		put: func(ctx context.Context, key string, r io.Reader, size int64, opts minio.PutObjectOptions) error {
			_, err := c.Client.PutObject(ctx, name, key, r, size, opts)
			return err
		},
		remove: func(ctx context.Context, key string) error {
			return c.RemoveObject(ctx, name, key, minio.RemoveObjectOptions{})
		},
	}, nil
}
