package cache

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
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

	partial string // where it is, without suffix, if it is a partial blob
}

// Path returns where the content is in the cache's folder.
func (c Content) Path() string {
	if c.partial != "" {
		return c.partial + dataSuffix
	}
	if c.Manifest {
		return contentPath("manifests", c.Digest)
	}
	return contentPath("blobs", c.Digest)
}

// contentPath returns where the content of a digest is stored, below blobs or manifests. A
// digest is safe in a path: hexadecimal of a known algorithm.
func contentPath(folder string, dgst digest.Digest) string {
	hex := dgst.Encoded()
	return path.Join(folder, dgst.Algorithm().String(), hex[:2], hex)
}

// Walk calls visit for all content, in no order.
func (d *Dir) Walk(ctx context.Context, visit func(Content) error) error {
	for _, folder := range []string{"blobs", "manifests"} {
		err := fs.WalkDir(d.root.FS(), folder, func(name string, e fs.DirEntry, err error) error {
			if err != nil || ctx.Err() != nil {
				return cmp.Or(ctx.Err(), ignoreMissing(err))
			}
			if e.IsDir() {
				return nil
			}
			algorithm, hex := path.Base(path.Dir(path.Dir(name))), path.Base(name)
			dgst, err := digest.Parse(algorithm + ":" + hex)
			if err != nil {
				return nil // another program's file
			}
			info, err := e.Info()
			if err != nil {
				return ignoreMissing(err)
			}
			return visit(Content{Digest: dgst, Manifest: folder == "manifests", Size: info.Size(), Used: info.ModTime(), Untrusted: isUntrusted(info)})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// OpenContent opens content without counting that as a use.
func (d *Dir) OpenContent(c Content) (*os.File, error) { return d.root.Open(c.Path()) }

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
	}
	d.recent.drop(gone)
	errs = append(errs, d.forgetGone(gone), ctx.Err())
	return gone, errors.Join(errs...)
}

// forgetGone removes the holdings of removed content.
func (d *Dir) forgetGone(gone map[digest.Digest]bool) error {
	if len(gone) == 0 {
		return nil
	}
	return d.Records(context.Background(), func(r Record) error {
		if (r.Kind == KindBlob || r.Kind == KindManifest) && gone[r.Digest()] {
			return d.RemoveRecord(r)
		}
		return nil
	})
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// digestOf makes "sha256/abc" of a path into a digest; "" if it is none.
func digestOf(name string) digest.Digest {
	dgst := digest.Digest(strings.Replace(name, "/", ":", 1))
	if dgst.Validate() != nil {
		return ""
	}
	return dgst
}
