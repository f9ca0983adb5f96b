package cache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

// Manifest is a stored manifest, to the byte. It is shared and must not be changed.
type Manifest struct {
	Digest   digest.Digest
	Body     []byte
	Holdings []Holding // how it is known that the repository holds it, the latest first
}

// Manifest returns a manifest that the repository is known to hold; fs.ErrNotExist if it is
// not stored, or not known to be held there. The caller is untrusted or not.
func (d *Dir) Manifest(r Repository, dgst digest.Digest, untrusted bool) (*Manifest, error) {
	m, due := d.recent.get(r, dgst)
	if due && !d.stillThere(r, dgst, untrusted) {
		d.recent.drop(dgst)
	} else if m != nil {
		return m, nil
	}
	held := d.holdings(r, KindManifest, dgst)
	if len(held) == 0 {
		return nil, fs.ErrNotExist
	}
	name := contentPath("manifests", dgst)
	f, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(f, oci.MaxManifest+1))
	if err != nil {
		return nil, err
	}
	if dgst.Algorithm().FromBytes(body) != dgst {
		return nil, fmt.Errorf("%w: the stored bytes of %s no longer match the digest", fs.ErrNotExist, dgst)
	}
	d.touch(name, info.ModTime())
	if !untrusted {
		d.promote(name, info)
	}
	m = &Manifest{dgst, body, held}
	d.recent.put(r, m)
	return m, nil
}

// stillThere reports whether a manifest that is in memory is on disk too, and records there that it
// was used.
func (d *Dir) stillThere(r Repository, dgst digest.Digest, untrusted bool) bool {
	name := contentPath("manifests", dgst)
	info, err := d.root.Stat(name)
	if err == nil {
		d.touch(name, info.ModTime())
		if !untrusted {
			d.promote(name, info)
		}
		_, err = d.root.Stat(holdingPath(r, KindManifest, dgst))
	}
	// A disk that fails does not say that the manifest is gone.
	return !errors.Is(err, fs.ErrNotExist)
}

// PutManifest stores a manifest, which the caller has verified, and records that the
// repository holds it. It records nothing of what the manifest lists: anyone who may push a
// manifest may list in it the digest of another repository's layer.
func (d *Dir) PutManifest(r Repository, dgst digest.Digest, body []byte, h Holding) error {
	name := contentPath("manifests", dgst)
	info, err := d.root.Stat(name)
	switch {
	case err == nil && !h.Untrusted:
		d.promote(name, info)
	case errors.Is(err, fs.ErrNotExist):
		if err := d.admitManifest(int64(len(body)), h.Untrusted); err != nil {
			return err
		}
		if err := d.writeDurably(name, body, h.Untrusted); err != nil {
			return err
		}
		d.grew(name, int64(len(body)), h.Untrusted)
	}
	if err := d.HoldManifest(r, dgst, h); err != nil {
		return err
	}
	d.recent.put(r, &Manifest{dgst, body, d.holdings(r, KindManifest, dgst)})
	return nil
}

func (d *Dir) writeDurably(name string, body []byte, untrusted bool) (err error) {
	temp := d.partialName("manifest")
	f, err := d.createPartial(temp, os.O_WRONLY)
	if err != nil {
		return err
	}
	defer func() {
		f.Close() // commit has synced it
		if err != nil {
			_ = d.root.Remove(temp)
		}
	}()
	if _, err = f.Write(body); err != nil {
		return err
	}
	if untrusted {
		if err = f.Chmod(untrustedMode); err != nil {
			return err
		}
	}
	return d.commit(f, temp, name)
}
