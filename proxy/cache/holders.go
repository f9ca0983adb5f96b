package cache

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Which repositories hold some content is in their records, and finding out from those takes a walk
// over all of them. The folder holders has the same the other way round: for each digest the
// repositories, one per line, in 256 files by the first byte of the digest. A line is appended when
// a holding is recorded, and stays when it goes: the records are the truth, and each line that is
// read is compared with them. A line that is missing costs at most that content is fetched again.
// The sweep, which sees all records anyway, writes the folder again if lines are missing or too
// many are of no use.
const (
	holdersFolder = "holders"
	newHolders    = "holders.new"
	holdersMark   = "COMPLETE" // names the cache that the folder belongs to

	maxShard     = 64 << 20 // bytes that are read of one file
	shardBuffer  = 4 << 10
	spareHolders = 4096 // lines of no use that are no reason to write them again
)

// holderLine returns the line of a holding.
func holderLine(r Record) string {
	return r.Digest().String() + " " + string(r.Kind) + " " + r.Repository.Registry + "/" + r.Repository.Name + "\n"
}

// parseHolder reads a line. A line that a crash, a full disk or another program has damaged is
// none.
func parseHolder(line []byte) (Record, bool) {
	dgst, rest, _ := bytes.Cut(line, []byte(" "))
	kind, name, _ := bytes.Cut(rest, []byte(" "))
	registry, repository, ok := strings.Cut(string(name), "/")
	d := digest.Digest(dgst)
	if !ok || !ValidDigest(d) || string(kind) != string(KindBlob) && string(kind) != string(KindManifest) {
		return Record{}, false
	}
	for part := range strings.SplitSeq(string(name), "/") {
		if part == "" || part == "." || part == ".." || part[0] == '_' || strings.ContainsAny(part, "\x00 ") {
			return Record{}, false
		}
	}
	r := Repository{registry, repository}
	return Record{r, RecordKind(kind), strings.Replace(string(dgst), ":", "/", 1), holdingPath(r, RecordKind(kind), d)}, true
}

func shardOf(dgst digest.Digest) string { return dgst.Encoded()[:2] }

// noteHolder appends a line for a holding that has just been recorded.
func (d *Dir) noteHolder(r Repository, kind RecordKind, dgst digest.Digest) {
	rec := Record{Repository: r, Kind: kind, Name: strings.Replace(string(dgst), ":", "/", 1)}
	d.holding.Lock()
	defer d.holding.Unlock()
	if d.rebuilding != nil {
		d.rebuilding.add(rec)
	}
	if err := d.appendTo(holdersFolder, shardOf(dgst), []byte(holderLine(rec))); err != nil {
		_ = d.root.Remove(path.Join(holdersFolder, holdersMark)) // the next sweep writes all of it
	}
}

func (d *Dir) appendTo(in, shard string, lines []byte) error {
	name := path.Join(in, shard)
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, fileMode)
	if errors.Is(err, fs.ErrNotExist) {
		_ = d.root.Mkdir(in, folderMode)
		f, err = d.root.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, fileMode)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(lines)
	return errors.Join(err, f.Close())
}

// HoldersKnown reports whether the folder of holders is complete and belongs to this cache.
func (d *Dir) HoldersKnown() bool {
	top, err := d.top()
	if err != nil {
		return false
	}
	mark, err := top.read(path.Join(holdersFolder, holdersMark), 64)
	return err == nil && strings.TrimSpace(string(mark)) == d.Identity(holdersFolder)
}

func (d *Dir) markHolders(in string) error {
	return d.root.WriteFile(path.Join(in, holdersMark), []byte(d.Identity(holdersFolder)+"\n"), fileMode)
}

// holderFile is the file of holders that was read last.
type holderFile struct {
	shard string
	data  []byte
}

// Holders calls visit for the records of the repositories that hold content, the latest first, until
// it returns false. It reads one file, and looks at each record. known is false if only a walk over
// all records could find them.
func (d *Dir) Holders(ctx context.Context, dgst digest.Digest, visit func(Record) bool) (known bool, err error) {
	if !d.HoldersKnown() {
		return false, nil
	}
	return true, d.eachHolder(ctx, &holderFile{}, dgst, visit)
}

func (d *Dir) eachHolder(ctx context.Context, f *holderFile, dgst digest.Digest, visit func(Record) bool) error {
	if !ValidDigest(dgst) {
		return nil
	}
	top, err := d.top()
	if err != nil {
		return err
	}
	if shard := shardOf(dgst); f.shard != shard {
		data, err := top.read(path.Join(holdersFolder, shard), maxShard)
		if errors.Is(err, fs.ErrNotExist) {
			data, err = nil, nil // no repository holds any
		}
		if err != nil {
			return err
		}
		f.shard, f.data = shard, data
	}
	seen := map[string]bool{}
	eachLineWith(f.data, dgst, func(line []byte) bool {
		r, ok := parseHolder(line)
		if !ok || seen[r.Path] {
			return true
		}
		seen[r.Path] = true
		i, err := top.stat(r.Path)
		return ctx.Err() == nil && (err != nil || !i.regular || visit(r))
	})
	return ctx.Err()
}

// eachLineWith calls visit for the lines that begin with the digest, the last first, until it
// returns false. A last line without an end is torn.
func eachLineWith(data []byte, dgst digest.Digest, visit func([]byte) bool) {
	start := []byte(dgst.String() + " ")
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	for at := len(data); ; {
		if at = bytes.LastIndex(data[:at], start); at < 0 {
			return
		}
		line := data[at:]
		line = line[:bytes.IndexByte(line, '\n')]
		if (at == 0 || data[at-1] == '\n') && !visit(line) {
			return
		}
	}
}

// forgetEvicted removes the holdings of removed content, if they are known without a walk. The
// sweep removes the others.
func (d *Dir) forgetEvicted(ctx context.Context, gone []digest.Digest) error {
	if len(gone) == 0 || !d.HoldersKnown() {
		return nil
	}
	slices.Sort(gone) // by file
	var errs []error
	var f holderFile
	for _, dgst := range gone {
		if ctx.Err() != nil {
			break // the next sweep removes the others
		}
		err := d.eachHolder(ctx, &f, dgst, func(r Record) bool {
			// It may have been fetched again.
			if _, err := d.Stored(dgst, r.Kind == KindManifest); errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, d.removeCounted(r))
			}
			return true
		})
		if ctx.Err() == nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// holdersBuild writes the folder of holders anew while a sweep goes over the records.
type holdersBuild struct {
	dir    *Dir
	active bool
	err    error
	shards map[string]*bytes.Buffer
}

// startHolders begins to write the folder of holders anew, if it is not complete.
func (d *Dir) startHolders() *holdersBuild {
	b := &holdersBuild{dir: d, shards: map[string]*bytes.Buffer{}}
	if d.HoldersKnown() {
		return b
	}
	b.err = errors.Join(d.root.RemoveAll(newHolders), d.root.Mkdir(newHolders, folderMode))
	b.active = b.err == nil
	if b.active {
		d.holding.Lock()
		defer d.holding.Unlock()
		d.rebuilding = b
	}
	return b
}

// add enters a holding. The caller holds Dir.holding.
func (b *holdersBuild) add(r Record) {
	if !b.active || b.err != nil || r.Digest() == "" {
		return
	}
	shard := shardOf(r.Digest())
	buf := b.shards[shard]
	if buf == nil {
		buf = &bytes.Buffer{}
		b.shards[shard] = buf
	}
	buf.WriteString(holderLine(r))
	if buf.Len() >= shardBuffer {
		b.err = b.dir.appendTo(newHolders, shard, buf.Bytes())
		buf.Reset()
	}
}

// swept enters a holding that a sweep has seen.
func (b *holdersBuild) swept(r Record) {
	b.dir.holding.Lock()
	defer b.dir.holding.Unlock()
	b.add(r)
}

// finish ends a sweep that has seen so many holdings. If it has written nothing, it counts the
// lines: if some are missing, or many are of no use, the next sweep writes them anew.
// What cannot be written costs a walk when it is needed, and is no error.
func (b *holdersBuild) finish(holdings int64) {
	d := b.dir
	if !b.active {
		lines, err := d.countHolders()
		if b.err == nil && err == nil && (lines < holdings || lines > 2*holdings+spareHolders) &&
			d.root.Remove(path.Join(holdersFolder, holdersMark)) == nil {
			d.sweepNow()
		}
		return
	}
	defer b.abandon()
	b.replace()
}

// replace puts what was written in the place of what was there.
func (b *holdersBuild) replace() {
	d := b.dir
	d.holding.Lock()
	defer d.holding.Unlock()
	for shard, buf := range b.shards {
		if b.err == nil && buf.Len() > 0 {
			b.err = d.appendTo(newHolders, shard, buf.Bytes())
		}
	}
	if b.err == nil && d.markHolders(newHolders) == nil && d.root.RemoveAll(holdersFolder) == nil &&
		d.root.Rename(newHolders, holdersFolder) == nil {
		b.active, d.rebuilding = false, nil
	}
}

// abandon ends what has not been finished.
func (b *holdersBuild) abandon() {
	if !b.active {
		return
	}
	b.dir.holding.Lock()
	defer b.dir.holding.Unlock()
	b.active, b.dir.rebuilding = false, nil
	_ = b.dir.root.RemoveAll(newHolders)
}

// countHolders returns how many lines there are.
func (d *Dir) countHolders() (lines int64, err error) {
	top, err := d.top()
	if err != nil {
		return 0, err
	}
	err = top.each(holdersFolder, func(in folder, shard string) error {
		if shard == holdersMark {
			return nil
		}
		data, err := in.read(shard, maxShard)
		for line := range bytes.Lines(data) {
			if _, ok := parseHolder(bytes.TrimSuffix(line, []byte("\n"))); ok {
				lines++
			}
		}
		return err
	})
	return lines, err
}
