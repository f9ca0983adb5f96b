package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/extent"
)

const (
	dataSuffix = ".data"
	listSuffix = ".extents"

	// claimStep is how many bytes are written before the list says so: what a killed process loses.
	claimStep = 1 << 20

	// growth is how much room is made at a time for what was not reserved.
	growth = 256 << 10
)

// ErrStorage says that content could not be stored: the disk is full, broken or cannot be written.
// It can still be had from its source.
var ErrStorage = errors.New("the cache cannot store it")

// Partial is a blob that is not whole: a sparse file, and the list of the extents that are present.
// It belongs to one source, because until the blob is verified no caller of another source may have
// its bytes. Close leaves it on disk for later. It is safe for concurrent use.
type Partial struct {
	// Size is the blob's size in bytes; -1 if it is unknown.
	Size int64

	dir    *Dir
	digest digest.Digest
	name   string // of the data, without its suffix
	file   *os.File
	leave  func()

	mu        sync.Mutex
	list      *os.File
	lines     int
	present   extent.Set
	fresh     extent.Set // written, and not yet claimed by the list
	reserved  extent.Set
	untrusted bool
	counted   int64 // bytes that the folder counts as used
	pending   int64 // bytes of the untrusted callers' share that are reserved
}

// partialPath returns where the partial blob of a source is, without suffix.
func partialPath(dgst digest.Digest, source string) string {
	sum := sha256.Sum256([]byte(source))
	return fmt.Sprintf("partial/%s-%s-%s", dgst.Algorithm(), dgst.Encoded(), hex.EncodeToString(sum[:8]))
}

// FindPartial opens what is present of a blob from a source; fs.ErrNotExist if nothing is.
func (d *Dir) FindPartial(dgst digest.Digest, source string, untrusted bool) (*Partial, error) {
	p := d.newPartial(dgst, source)
	err := p.load()
	if err == nil {
		err = p.rewriteList()
	}
	if err != nil {
		p.release()
		return nil, err
	}
	if !untrusted {
		p.Trust()
	}
	return p, nil
}

// CreatePartial makes an empty partial blob, in place of one that may be there. The error is
// ErrStorage if that is impossible, also because another process has it open.
func (d *Dir) CreatePartial(dgst digest.Digest, source string, size int64, untrusted bool) (*Partial, error) {
	if old, err := d.FindPartial(dgst, source, untrusted); err == nil {
		old.Discard()
	} else if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: another process fetches it", ErrStorage)
	}
	p := d.newPartial(dgst, source)
	p.Size, p.untrusted = size, untrusted
	if err := p.create(); err != nil {
		p.release()
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return p, nil
}

func (d *Dir) newPartial(dgst digest.Digest, source string) *Partial {
	d.mu.Lock()
	d.reading[dgst]++ // so that it is not evicted
	d.mu.Unlock()
	return &Partial{
		dir: d, digest: dgst, name: partialPath(dgst, source),
		leave: sync.OnceFunc(func() { d.leave(dgst) }),
	}
}

// load opens the files and reads the list.
func (p *Partial) load() error {
	file, err := p.dir.root.OpenFile(p.name+dataSuffix, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) { // of an untrusted caller: mode 0400, to a process that is not root
		file, err = p.reopenWritable()
	}
	if err != nil {
		return err
	}
	p.file = file
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	b, err := p.dir.readList(p.name)
	if err == nil {
		p.Size, p.present, err = parseList(b, bootID())
	}
	if err != nil {
		p.remove()
		return errors.Join(fs.ErrNotExist, err)
	}
	p.present.Remove(extent.Extent{Start: info.Size(), End: max(p.Size, info.Size()) + 1})
	p.untrusted = isUntrusted(info)
	p.counted = p.present.Bytes()
	p.reserved = p.present.Clone()
	return nil
}

// reopenWritable opens the data of an untrusted caller, whose mode marks it and does not protect it.
func (p *Partial) reopenWritable() (*os.File, error) {
	if err := p.dir.root.Chmod(p.name+dataSuffix, fileMode); err != nil {
		return nil, err
	}
	file, err := p.dir.root.OpenFile(p.name+dataSuffix, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return file, file.Chmod(untrustedMode)
}

func (d *Dir) readList(name string) ([]byte, error) {
	f, err := d.root.Open(name + listSuffix)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxListSize+1))
	if err == nil && len(b) > maxListSize {
		err = errBadList
	}
	return b, err
}

// create makes the files.
func (p *Partial) create() error {
	p.remove() // what may be left of a process that was killed between the two
	var err error
	if p.file, err = p.dir.createPartial(p.name+dataSuffix, os.O_RDWR); err != nil {
		return err
	}
	if err := unix.Flock(int(p.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	if p.untrusted {
		if err := p.file.Chmod(untrustedMode); err != nil {
			return err
		}
	}
	if err := p.rewriteList(); err != nil {
		p.remove()
		return err
	}
	return nil
}

func (p *Partial) remove() {
	_ = p.dir.root.Remove(p.name + listSuffix)
	_ = p.dir.root.Remove(p.name + dataSuffix)
}

// rewriteList writes the list anew, as short as it can be. p.mu is held, or p not shared yet.
func (p *Partial) rewriteList() error {
	temp := p.name + listSuffix + ".new"
	_ = p.dir.root.Remove(temp)
	f, err := p.dir.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(formatList(p.Size, bootID(), &p.present, false))
	if err == nil {
		err = p.dir.root.Rename(temp, p.name+listSuffix)
	}
	if err != nil {
		f.Close()
		_ = p.dir.root.Remove(temp)
		return err
	}
	if p.list != nil {
		p.list.Close()
	}
	p.list, p.lines = f, p.present.Count()
	p.fresh = extent.Set{}
	return nil
}

// Present returns which bytes are present.
func (p *Partial) Present() extent.Set {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.present.Clone()
}

// Full reports whether the partial blob is made of so many extents that no separate one is added.
func (p *Partial) Full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.present.Count() >= maxExtents/2
}

// Reserve makes sure that the bytes of e can be stored, so that a full disk shows before they come.
func (p *Partial) Reserve(ctx context.Context, e extent.Extent) error {
	p.mu.Lock()
	missing := e.Len()
	for gap := e; ; {
		there := p.reserved.RunFrom(gap.Start)
		if there >= e.End {
			missing -= e.End - gap.Start
			break
		}
		missing -= there - gap.Start
		next, ok := p.reserved.Missing(extent.Extent{Start: there, End: e.End})
		if !ok || next.End >= e.End {
			break
		}
		gap.Start = next.End
	}
	untrusted, total := p.untrusted, p.reserved.Bytes()+missing
	p.mu.Unlock()
	if missing <= 0 {
		return nil
	}
	if limit := p.dir.limits.Load().MaxSize; limit > 0 && total > limit {
		return fmt.Errorf("%w: it is longer than the cache's max_size", ErrStorage)
	}
	if err := p.dir.reserve(ctx, missing, untrusted); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	err := unix.Fallocate(int(p.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, e.Start, e.Len())
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%w: reserving %d bytes: %w", ErrStorage, missing, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reserved.Add(e)
	if p.untrusted {
		p.pending += missing
		p.dir.pendingUntrusted.Add(missing)
	}
	return nil
}

// WriteAt stores bytes. An error is ErrStorage.
func (p *Partial) WriteAt(ctx context.Context, b []byte, off int64) error {
	e := extent.Extent{Start: off, End: off + int64(len(b))}
	p.mu.Lock()
	room := p.reserved.Covers(e)
	p.mu.Unlock()
	if !room {
		if err := p.Reserve(ctx, p.step(e)); err != nil {
			return err
		}
	}
	if _, err := p.file.WriteAt(b, off); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.present.Bytes()
	p.present.Add(e)
	p.fresh.Add(e)
	p.count(p.present.Bytes() - before)
	if p.fresh.Bytes() >= claimStep {
		p.claim()
	}
	return nil
}

// step returns what to reserve for e: a little ahead of it.
func (p *Partial) step(e extent.Extent) extent.Extent {
	step := int64(growth)
	if limit := p.dir.limits.Load().MaxSize; limit > 0 {
		step = min(step, limit/32)
	}
	e.End = max(e.End, e.Start+step)
	if p.Size >= 0 {
		e.End = min(e.End, max(p.Size, e.Start))
	}
	return e
}

// count counts n more bytes as used. p.mu is held.
func (p *Partial) count(n int64) {
	p.counted += n
	p.dir.grew(n, p.untrusted)
	if p.untrusted {
		done := min(n, p.pending)
		p.pending -= done
		p.dir.pendingUntrusted.Add(-done)
	}
}

// claim appends to the list what is written since the last time. A list that cannot be written
// claims less than there is. p.mu is held.
func (p *Partial) claim() {
	if p.lines += p.fresh.Count(); p.lines > 2*p.present.Count()+1024 {
		if p.rewriteList() == nil {
			return
		}
	}
	if _, err := p.list.Write(appendExtents(nil, &p.fresh)); err == nil {
		p.fresh = extent.Set{}
	}
}

// ReadAt implements [io.ReaderAt].
func (p *Partial) ReadAt(b []byte, off int64) (int, error) { return p.file.ReadAt(b, off) }

// Open returns the data once more, with an offset of its own. It may be committed meanwhile.
func (p *Partial) Open() (*os.File, error) {
	f, err := p.dir.root.Open(p.name + dataSuffix)
	if err != nil {
		f, err = p.dir.root.Open(contentPath("blobs", p.digest))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return f, nil
}

// Trust makes it the trusted callers' own.
func (p *Partial) Trust() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.untrusted || p.file.Chmod(fileMode) != nil {
		return
	}
	p.untrusted = false
	p.dir.usedUntrusted.Add(-p.counted)
	p.dir.pendingUntrusted.Add(-p.pending)
	p.pending = 0
}

// Sync brings what is present to the disk, so that it counts also after the machine went down.
func (p *Partial) Sync() error {
	p.mu.Lock()
	p.claim()
	list := p.list
	lines := p.lines
	p.mu.Unlock()
	if err := unix.Fdatasync(int(p.file.Fd())); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if list != p.list || lines != p.lines {
		return nil // more was written meanwhile, which is not synced
	}
	if _, err := list.WriteString(syncedLine); err != nil {
		return err
	}
	return unix.Fdatasync(int(list.Fd()))
}

// Commit makes the file a stored blob. The caller has verified it. The partial blob is closed.
func (p *Partial) Commit() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.dir.commit(p.file, p.name+dataSuffix, contentPath("blobs", p.digest))
	if err != nil {
		p.discard()
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	_ = p.dir.root.Remove(p.name + listSuffix)
	p.release()
	return nil
}

// Discard removes it.
func (p *Partial) Discard() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.discard()
}

func (p *Partial) discard() {
	if p.file != nil {
		p.remove()
	}
	p.dir.used.Add(-p.counted)
	if p.untrusted {
		p.dir.usedUntrusted.Add(-p.counted)
	}
	p.counted = 0
	p.release()
}

// Close leaves it on disk, or removes it if nothing is present.
func (p *Partial) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == nil {
		return nil
	}
	if p.present.Count() == 0 {
		p.discard()
		return nil
	}
	if p.fresh.Count() > 0 {
		p.claim()
	}
	p.giveBack()
	p.release()
	return nil
}

// giveBack frees what was reserved on disk and is not written.
func (p *Partial) giveBack() {
	for _, e := range p.present.All() {
		p.reserved.Remove(e)
	}
	for _, e := range p.reserved.All() {
		_ = unix.Fallocate(int(p.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, e.Start, e.Len())
	}
}

func (p *Partial) release() {
	p.dir.pendingUntrusted.Add(-p.pending)
	p.pending = 0
	if p.file != nil {
		p.file.Close()
	}
	if p.list != nil {
		p.list.Close()
	}
	p.file, p.list = nil, nil
	p.leave()
}

// Clear removes what earlier processes left in the folder of partial files and no process can use.
// Only the process that serves may call it, before it serves.
func (d *Dir) Clear() error {
	names, err := d.partialNames()
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, name := range names {
		there[name] = true
	}
	for _, name := range names {
		base, isData := strings.CutSuffix(name, dataSuffix)
		if isData && there[base+listSuffix] && d.usable("partial/"+base) {
			continue
		}
		if base, isList := strings.CutSuffix(name, listSuffix); isList && there[base+dataSuffix] {
			continue // it goes or stays with its data
		}
		_ = ignoreMissing(d.root.Remove("partial/" + base + listSuffix))
		if err := d.root.Remove("partial/" + name); ignoreMissing(err) != nil {
			return err
		}
	}
	return nil
}

// usable reports whether anything is present in the partial blob of that name.
func (d *Dir) usable(name string) bool {
	b, err := d.readList(name)
	if err != nil {
		return false
	}
	_, present, err := parseList(b, bootID())
	return err == nil && present.Count() > 0
}

func (d *Dir) partialNames() ([]string, error) {
	folder, err := d.root.Open("partial")
	if err != nil {
		return nil, ignoreMissing(err)
	}
	defer folder.Close()
	return folder.Readdirnames(-1)
}

// walkPartials calls visit for the partial blobs.
func (d *Dir) walkPartials(visit func(Content) error) error {
	names, err := d.partialNames()
	if err != nil {
		return err
	}
	for _, name := range names {
		base, isData := strings.CutSuffix(name, dataSuffix)
		algorithm, rest, _ := strings.Cut(base, "-")
		encoded, _, _ := strings.Cut(rest, "-")
		dgst, err := digest.Parse(algorithm + ":" + encoded)
		if !isData || err != nil {
			continue
		}
		info, err := d.root.Stat("partial/" + name)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		size := info.Size()
		if d.statPartial(name, &st) == nil {
			size = st.Blocks * 512
		}
		c := Content{Digest: dgst, Size: size, Used: info.ModTime(), Untrusted: isUntrusted(info), partial: path.Join("partial", base)}
		if err := visit(c); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) statPartial(name string, st *unix.Stat_t) error {
	folder, err := d.root.Open("partial")
	if err != nil {
		return err
	}
	defer folder.Close()
	return unix.Fstatat(int(folder.Fd()), name, st, unix.AT_SYMLINK_NOFOLLOW)
}
