package cache

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
)

// RecordKind says what a record is about. It is the name of its folder in its repository.
type RecordKind string

// The kinds of record.
const (
	KindTag      RecordKind = "_tags"      // what a tag means
	KindManifest RecordKind = "_manifests" // that the repository holds a manifest
	KindBlob     RecordKind = "_blobs"     // that it holds a blob
	KindList     RecordKind = "_answers"   // a list of tags or referrers
	KindGrant    RecordKind = "_grants"    // who may have its content
)

// Record is a small file about a repository.
type Record struct {
	Repository Repository
	Kind       RecordKind
	Name       string // in the folder of its kind
	Path       string // in the cache's folder
}

// Digest returns the digest that a holding is about; "" for another kind of record.
func (r Record) Digest() digest.Digest { return digestOf(r.Name) }

// Records calls visit for each record of each repository, sorted by path.
func (d *Dir) Records(ctx context.Context, visit func(Record) error) error {
	return d.walkRecords(ctx, func(r Record, _ fs.DirEntry) error { return visit(r) })
}

func (d *Dir) walkRecords(ctx context.Context, visit func(Record, fs.DirEntry) error) error {
	return fs.WalkDir(d.root.FS(), "repositories", func(name string, e fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return cmp.Or(ctx.Err(), ignoreMissing(err))
		}
		before, after, ok := strings.Cut(strings.TrimPrefix(name, "repositories/"), "/_")
		registry, repository, inRegistry := strings.Cut(before, "/")
		if e.IsDir() || !ok || !inRegistry {
			return nil
		}
		kind, rest, _ := strings.Cut(after, "/")
		return visit(Record{Repository{registry, repository}, RecordKind("_" + kind), rest, name}, e)
	})
}

// CheckRecord returns an error if a record cannot be read or is no JSON, as a power failure
// leaves it.
func (d *Dir) CheckRecord(r Record) error {
	most := int64(maxRecord)
	if r.Kind == KindList {
		most = 2 * maxAnswer
	}
	var content json.RawMessage
	return d.readFile(r.Path, most, &content)
}

// RemoveRecord removes a record. One that is missing already is no error.
func (d *Dir) RemoveRecord(r Record) error { return ignoreMissing(d.root.Remove(r.Path)) }

func (d *Dir) readRecord(name string, into any) error { return d.readFile(name, maxRecord, into) }

func (d *Dir) readFile(name string, most int64, into any) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// writeRecord writes a record so that a reader finds the old one or the new one. It does not
// wait for the disk: a record that is lost or torn counts as missing. A record of trusted callers
// stays theirs.
func (d *Dir) writeRecord(name string, v any, untrusted bool) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	blocks := recordCost(int64(len(data)) + 1)
	old, err := d.root.Lstat(name)
	if err == nil {
		blocks -= recordCost(old.Size())
		untrusted = untrusted && isUntrusted(old)
	}
	if err := d.admitRecord(blocks, untrusted); err != nil {
		return err
	}
	if err := d.root.MkdirAll(path.Dir(name), folderMode); err != nil {
		return err
	}
	temp := d.partialName("record")
	if err := d.writePartial(temp, append(data, '\n'), untrusted); err != nil {
		_ = d.root.Remove(temp)
		return err
	}
	if err := d.root.Rename(temp, name); err != nil {
		_ = d.root.Remove(temp)
		return err
	}
	return nil
}

func (d *Dir) writePartial(name string, data []byte, untrusted bool) error {
	f, err := d.createPartial(name, os.O_WRONLY)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && untrusted {
		err = f.Chmod(untrustedMode)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
