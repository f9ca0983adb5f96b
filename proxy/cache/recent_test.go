package cache_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

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

// eventually asks again and again until so.
func eventually(t *testing.T, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen in a minute")
		}
	}
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

func TestAManifestInMemoryThatWasRemovedIsForgotten(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"content", "membership"} {
		t.Run(what, func(t *testing.T) {
			path := t.TempDir()
			d := opened(t, path)
			dgst := putManifest(t, d, app, "{}")
			name := contentFile(path, "manifests", dgst)
			if what == "membership" {
				name = filepath.Join(path, "repositories/ghcr.io/acme/app/_manifests/sha256", dgst.Encoded())
			}
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool {
				_, err := d.Manifest(app, dgst, false)
				return errors.Is(err, fs.ErrNotExist)
			})
		})
	}
}

func TestAManifestServedFromMemoryCountsAsUsed(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	d := opened(t, path)
	dgst := putManifest(t, d, app, "{}")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(contentFile(path, "manifests", dgst), old, old); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		if _, err := d.Manifest(app, dgst, false); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(contentFile(path, "manifests", dgst))
		return err == nil && time.Since(info.ModTime()) < time.Minute
	})
}
