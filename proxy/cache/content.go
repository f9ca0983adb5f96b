package cache

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Content is a stored blob or manifest.
type Content struct {
	Digest   digest.Digest
	Manifest bool
	Size     int64 // as on disk
	Used     time.Time

	Untrusted bool // only untrusted callers have asked for it
}

// Path returns where the content is in the cache's folder.
func (c Content) Path() string {
	if c.Manifest {
		return contentPath("manifests", c.Digest)
	}
	return contentPath("blobs", c.Digest)
}

// contentPath returns where the content of a digest is stored, below blobs or manifests. A
// digest is safe in a path: hexadecimal of a known algorithm. What is no digest has the path of no
// file, so that looking for it finds nothing.
func contentPath(folder string, dgst digest.Digest) string {
	if !ValidDigest(dgst) {
		return path.Join(folder, noDigest)
	}
	hex := dgst.Encoded()
	return path.Join(folder, dgst.Algorithm().String(), hex[:2], hex)
}

// noDigest is a name that neither content nor a record has.
const noDigest = "none"

// Walk calls visit for all content, in no order.
func (d *Dir) Walk(ctx context.Context, visit func(Content) error) error {
	return d.eachContent(ctx, nil, func(at place, i fileInfo) error {
		return visit(Content{Digest: at.digest(), Manifest: at.isManifest(), Size: i.size, Used: i.used, Untrusted: i.untrusted})
	})
}

// Stored looks at content; fs.ErrNotExist if it is not stored.
func (d *Dir) Stored(dgst digest.Digest, manifest bool) (Content, error) {
	c := Content{Digest: dgst, Manifest: manifest}
	i, err := d.stat(c.Path())
	if err == nil && !i.regular {
		err = fs.ErrNotExist
	}
	c.Size, c.Used, c.Untrusted = i.size, i.used, i.untrusted
	return c, err
}

// OpenContent opens content without counting that as a use.
func (d *Dir) OpenContent(c Content) (*os.File, error) { return d.open(c.Path()) }

// RemoveContent removes content, and the records that say which repositories hold it. It
// returns what it has removed, also with an error.
func (d *Dir) RemoveContent(ctx context.Context, all []Content) (map[digest.Digest]bool, error) {
	var errs []error
	gone := map[digest.Digest]bool{}
	for _, c := range all {
		if ctx.Err() != nil {
			break
		}
		if err := ignoreMissing(d.root.Remove(c.Path())); err != nil {
			errs = append(errs, err)
			continue
		}
		gone[c.Digest] = true
		d.recent.drop(c.Digest)
	}
	errs = append(errs, d.forgetGone(gone), ctx.Err())
	return gone, errors.Join(errs...)
}

// forgetGone removes the holdings of removed content. If it is not known which those are, it reads
// through all records.
func (d *Dir) forgetGone(gone map[digest.Digest]bool) error {
	if len(gone) == 0 {
		return nil
	}
	ctx := context.Background()
	if !d.HoldersKnown() {
		return d.Records(ctx, func(r Record) error {
			if (r.Kind == KindBlob || r.Kind == KindManifest) && gone[r.Digest()] {
				return d.RemoveRecord(r)
			}
			return nil
		})
	}
	return d.forgetEvicted(ctx, slices.Collect(maps.Keys(gone)))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// digestOf makes "sha256/abc" of a path into a digest; "" if it is none.
func digestOf(name string) digest.Digest {
	algorithm, hex, _ := strings.Cut(name, "/")
	if !isDigest(digest.Algorithm(algorithm), hex) {
		return ""
	}
	return digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
}
