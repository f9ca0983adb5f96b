package cache

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path"

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

// Records calls visit for each record of each repository.
func (d *Dir) Records(ctx context.Context, visit func(Record) error) error {
	return d.eachRepository(ctx, func(r Repository, f folder, kinds []string) error {
		return f.eachRecord(ctx, r, kinds, func(rec Record, _ folder, _ string) error { return visit(rec) })
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

// removeCounted removes a record and takes it out of the account.
func (d *Dir) removeCounted(r Record) error {
	i, err := d.stat(r.Path)
	if err != nil {
		return ignoreMissing(err)
	}
	if err := d.RemoveRecord(r); err != nil {
		return err
	}
	s := &d.space
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = max(s.records-recordBlocks(i.size), 0)
	if i.untrusted {
		s.recordsUntrusted = max(s.recordsUntrusted-recordBlocks(i.size), 0)
	}
	return nil
}

func (d *Dir) readRecord(name string, into any) error { return d.readFile(name, maxRecord, into) }

func (d *Dir) readFile(name string, most int64, into any) error {
	f, err := d.open(name)
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
