package inventory_test

import (
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const manifestType = "application/vnd.oci.image.manifest.v1+json"

var app = cache.Repository{Registry: "ghcr.io", Name: "acme/app"}

// opened is a cache in a folder.
func opened(t *testing.T, path string) *cache.Dir {
	t.Helper()
	d, err := cache.Open(path, cache.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func putManifest(t *testing.T, d *cache.Dir, r cache.Repository, body string) digest.Digest {
	t.Helper()
	dgst := digest.FromString(body)
	h := cache.Holding{MediaType: manifestType, Learned: cache.Learned{Upstream: "https://upstream.example"}}
	if err := d.PutManifest(r, dgst, []byte(body), h); err != nil {
		t.Fatal(err)
	}
	return dgst
}

// contentFile is where content is kept.
func contentFile(path, folder string, dgst digest.Digest) string {
	return filepath.Join(path, folder, "sha256", dgst.Encoded()[:2], dgst.Encoded())
}
