// Package cache stores what was pulled: content on disk by its digest, and small records of what
// a tag meant, which repository holds what, and who may have it.
//
// The folder is plain and can be read with ls:
//
//	VERSION                                         the layout's version, "1"
//	KEY                                             of the names in _grants
//	blobs/sha256/2c/2c26b46b…                       a blob, whole and verified
//	manifests/sha256/9f/9f86d081…                   a manifest, likewise
//	partial/sha256-2c26b46b…-0f3a….data             a blob that is not whole, from one upstream
//	partial/sha256-2c26b46b…-0f3a….extents          which bytes of it are there
//	USAGE                                           how much there is, for the next start
//	holders/2c                                      which repositories hold the digests 2c…
//	repositories/docker.io/library/alpine/
//	    _tags/3.20                                  what the tag meant, and when
//	    _manifests/sha256/9f86d081…                 a manifest it holds, and its type
//	    _blobs/sha256/2c26b46b…                     a blob it holds
//	    _answers/…                                  last lists of tags and referrers
//	    _grants                                     whom which upstream let have content
//
// A file's modification time is when content was last used, or a record written. A file of mode
// 0400 is there for untrusted callers only. Names that begin with "_" cannot be a repository's.
// Only the version is read at the start, and unusable partial files are removed: content has its
// name only once it is whole, verified and on disk.
package cache

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/internal/durable"
)

// layout is the version of the folder's layout that this package reads and writes.
const layout = "1"

// keySize is the length of the key of identities, in bytes.
const keySize = 32

// useResolution is how exactly the last use is recorded: a file that is used again within that time
// is not touched again.
const useResolution = 10 * time.Minute

// What is stored is for this process's user alone, whatever the umask: it may be private content.
const (
	folderMode = 0o700
	fileMode   = 0o600
)

// Dir is a cache folder. It is safe for concurrent use, also by several processes.
type Dir struct {
	root *os.Root
	key  []byte // of identities

	limits   atomic.Pointer[Limits]
	folder   *os.File      // the root, for walks
	eviction chan struct{} // asks Keep to make room
	sweeping chan struct{} // asks Keep to look at the records
	keeping  atomic.Bool   // Keep runs

	space    space
	promised int64 // the account on disk allows so much; under space.mu
	dirty    bool  // this process has written the account; under space.mu

	victims victims // for Keep alone

	holding    sync.Mutex // of the lines in the folder of holders
	rebuilding *holdersBuild

	surveys, sweeps atomic.Int64 // how many there were

	mu      sync.Mutex
	reading map[digest.Digest]int // open blobs, whole and partial

	granting   sync.Mutex // of the records of grants
	recent     recent     // manifests
	recentTags recentTags
}

// Open opens the cache in the folder at path and makes what is missing of it. It fails if the
// folder cannot be written or has another layout.
func Open(path string, limits Limits) (*Dir, error) {
	if err := os.MkdirAll(path, folderMode); err != nil {
		return nil, fmt.Errorf("making the cache folder: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("opening the cache folder: %w", err)
	}
	d := &Dir{
		root:     root,
		eviction: make(chan struct{}, 1),
		sweeping: make(chan struct{}, 1),
		reading:  map[digest.Digest]int{},
	}
	d.limits.Store(&limits)
	if err := closeToOthers(root); err != nil {
		root.Close()
		return nil, fmt.Errorf("making the cache folder private: %w", err)
	}
	if d.folder, err = root.Open("."); err != nil {
		root.Close()
		return nil, fmt.Errorf("opening the cache folder: %w", err)
	}
	if err := d.prepare(path); err != nil {
		d.folder.Close()
		root.Close()
		return nil, err
	}
	return d, nil
}

// closeToOthers takes the permissions of all users from a folder that an earlier version made. It
// leaves the group's if the others have none: an administrator chose those.
func closeToOthers(root *os.Root) error {
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o007 == 0 || int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		return nil
	}
	if err := f.Chmod(folderMode); !errors.Is(err, syscall.EROFS) {
		return err
	}
	return nil // what is there can be served, and nothing is added
}

func (d *Dir) prepare(path string) error {
	version, err := d.root.ReadFile("VERSION")
	isNew := errors.Is(err, fs.ErrNotExist)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(version) == 0:
		// A first start that was killed, or found the disk full, leaves it empty.
		if err := d.root.WriteFile("VERSION", []byte(layout+"\n"), fileMode); err != nil {
			return fmt.Errorf("writing in the cache folder: %w", err)
		}
	case err != nil:
		return fmt.Errorf("reading the cache's version: %w", err)
	case strings.TrimSpace(string(version)) != layout:
		return fmt.Errorf("the cache in %s has layout %.20q, and this sidemirror knows %q: empty the folder, or name another as cache.dir", path, version, layout)
	}
	if d.key, err = d.loadKey(); err != nil {
		return fmt.Errorf("reading the cache's key: %w", err)
	}
	for _, folder := range []string{"blobs", "manifests", "partial", "repositories"} {
		err := d.root.Mkdir(folder, folderMode)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("writing in the cache folder: %w", err)
		}
		isNew = isNew && err == nil
	}
	if isNew && d.root.Mkdir(holdersFolder, folderMode) == nil {
		_ = d.markHolders(holdersFolder) // or the first sweep writes it
	}
	if err := d.loadUsage(isNew); err != nil {
		return fmt.Errorf("reading the cache's account: %w", err)
	}
	return nil
}

// loadKey reads the key of identities, or makes one. Only the owner may read it: with the key and
// the name in a record passwords could be tried.
func (d *Dir) loadKey() ([]byte, error) {
	key, err := d.root.ReadFile("KEY")
	if err == nil && len(key) == keySize {
		return key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key = make([]byte, keySize)
	_, _ = rand.Read(key) // never fails: crypto/rand
	return key, d.root.WriteFile("KEY", key, fileMode)
}

// Close closes the folder.
func (d *Dir) Close() error {
	d.settleUsage()
	return errors.Join(d.folder.Close(), d.root.Close())
}

// Blob is a stored blob. It must be closed.
type Blob struct {
	*os.File
	Size int64

	done func()
}

// Close closes the file.
func (b *Blob) Close() error {
	b.done()
	return b.File.Close()
}

// Blob opens a blob for an untrusted caller or not; fs.ErrNotExist if it is not stored.
func (d *Dir) Blob(dgst digest.Digest, untrusted bool) (*Blob, error) {
	// It counts as read before it is opened, so that it is not evicted in between.
	d.mu.Lock()
	d.reading[dgst]++
	d.mu.Unlock()
	done := sync.OnceFunc(func() { d.leave(dgst) })
	name := contentPath("blobs", dgst)
	f, err := d.open(name)
	if err != nil {
		done()
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		done()
		f.Close()
		return nil, err
	}
	d.touch(name, info.ModTime())
	if !untrusted {
		d.promote(name, info)
	}
	return &Blob{f, info.Size(), done}, nil
}

// HasBlob reports whether a blob is stored.
func (d *Dir) HasBlob(dgst digest.Digest) bool {
	_, err := d.versionOf(contentPath("blobs", dgst))
	return err == nil
}

func (d *Dir) leave(dgst digest.Digest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reading[dgst]--; d.reading[dgst] == 0 {
		delete(d.reading, dgst)
	}
}

// touch records that a file was used.
func (d *Dir) touch(name string, last time.Time) {
	now := time.Now()
	if age := now.Sub(last); age < 0 || age > useResolution {
		// In a folder that cannot be written uses are not recorded, and content is served all the
		// same.
		_ = d.root.Chtimes(name, now, now)
	}
}

// commit gives f, which is written and named partial/…, its final name, durably.
func (d *Dir) commit(f *os.File, partial, name string) error {
	if err := d.root.MkdirAll(path.Dir(name), folderMode); err != nil {
		return err
	}
	from, err := d.root.Open(path.Dir(partial))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := d.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer to.Close()
	return durable.Rename(f, from, path.Base(partial), to, path.Base(name))
}

// createPartial makes a file of partialName. If an administrator has emptied the folder while this
// process runs, it makes the folder again.
func (d *Dir) createPartial(name string, flag int) (*os.File, error) {
	flag |= os.O_CREATE | os.O_EXCL
	f, err := d.root.OpenFile(name, flag, fileMode)
	if errors.Is(err, fs.ErrNotExist) {
		_ = d.root.Mkdir("partial", folderMode) // or another has just made it
		f, err = d.root.OpenFile(name, flag, fileMode)
	}
	return f, err
}

var partials atomic.Uint64

// partialName returns a name for an unfinished file. Several processes may be at work.
func (d *Dir) partialName(what string) string {
	return fmt.Sprintf("partial/%s-%d-%d", what, os.Getpid(), partials.Add(1))
}
