package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// folder is an open folder. A walk from descriptor to descriptor costs a system call or two for
// each entry, a tenth of what [os.Root] costs, and never follows a symbolic link.
type folder struct{ fd int }

// openFolder opens the folder called name in the folder of descriptor at.
func openFolder(at int, name string) (folder, error) {
	for {
		fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			return folder{fd}, nil
		}
		if err != unix.EINTR {
			return folder{-1}, &fs.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

func (f folder) sub(name string) (folder, error) { return openFolder(f.fd, name) }

func (f folder) close() { _ = unix.Close(f.fd) }

// entryBuffers are for entries of folders as the kernel has them.
var entryBuffers = sync.Pool{New: func() any { return new([entryBuffer]byte) }}

const entryBuffer = 32 << 10

// names returns the names of the entries, in no order.
func (f folder) names() ([]string, error) {
	var all []string
	buf := entryBuffers.Get().(*[entryBuffer]byte)
	defer entryBuffers.Put(buf)
	for {
		n, err := unix.ReadDirent(f.fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return all, ignoreErrno(err)
		}
		_, _, all = unix.ParseDirent(buf[:n], -1, all)
	}
}

// ignoreErrno makes an error of a system call into one that callers can examine.
func ignoreErrno(err error) error {
	if err == nil {
		return nil
	}
	return os.NewSyscallError("getdents", err)
}

// fileInfo is what a walk needs to know of a file.
type fileInfo struct {
	size      int64
	allocated int64 // bytes on disk
	used      time.Time
	untrusted bool
	regular   bool
}

// stat looks at the file called name, which may be a path.
func (f folder) stat(name string) (fileInfo, error) {
	var st unix.Stat_t
	for {
		err := unix.Fstatat(f.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			return infoOf(&st), nil
		}
		if err != unix.EINTR {
			return fileInfo{}, &fs.PathError{Op: "stat", Path: name, Err: err}
		}
	}
}

// remove removes the file called name.
func (f folder) remove(name string) error {
	for {
		err := unix.Unlinkat(f.fd, name, 0)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &fs.PathError{Op: "remove", Path: name, Err: err}
		}
	}
}

func infoOf(st *unix.Stat_t) fileInfo {
	return fileInfo{
		size:      st.Size,
		allocated: st.Blocks * 512,
		used:      time.Unix(st.Mtim.Unix()),
		untrusted: st.Mode&0o200 == 0,
		regular:   st.Mode&unix.S_IFMT == unix.S_IFREG,
	}
}

// read reads at most so many bytes of the file called name.
func (f folder) read(name string, most int64) ([]byte, error) {
	buf := recordBuffers.Get().(*[recordBuffer]byte)
	defer recordBuffers.Put(buf)
	fd, err := unix.Openat(f.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	n, err := unix.Read(fd, buf[:min(recordBuffer, most)])
	_ = unix.Close(fd)
	if err == nil && n < recordBuffer {
		return slices.Clone(buf[:n]), nil
	}
	data, _, err := f.readInfo(name, most) // it is larger, or something is wrong
	return data, err
}

// recordBuffers are for small files, as records are.
var recordBuffers = sync.Pool{New: func() any { return new([recordBuffer]byte) }}

const recordBuffer = 4 << 10

// readInfo is read, and returns what the file is too.
func (f folder) readInfo(name string, most int64) ([]byte, fileInfo, error) {
	fd, err := unix.Openat(f.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileInfo{}, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fileInfo{}, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	i := infoOf(&st)
	if !i.regular {
		return nil, i, &fs.PathError{Op: "read", Path: name, Err: fs.ErrInvalid}
	}
	// What is written into the cache is renamed into place: a file does not grow.
	data := make([]byte, min(i.size, most))
	for at := 0; at < len(data); {
		n, err := unix.Read(fd, data[at:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, i, &fs.PathError{Op: "read", Path: name, Err: err}
		case n == 0:
			return data[:at], i, nil
		default:
			at += n
		}
	}
	return data, i, nil
}

// pace makes a walk in the background cost a pull nothing: it works in short slices, and rests
// longer than it works. A nil pace does not rest.
type pace struct {
	ctx     context.Context
	between func() // called between two slices
	began   time.Time
	worked  time.Duration
	looks   int
}

const (
	sliceWork = 2 * time.Millisecond
	sliceRest = 6 * time.Millisecond
	looksPer  = 32 // entries between two looks at the clock
)

// step is called for each entry of a walk, and rests if it is time to.
func (p *pace) step() error {
	if p == nil {
		return nil
	}
	if p.looks++; p.looks%looksPer != 0 {
		return nil
	}
	now := time.Now()
	if p.began.IsZero() {
		p.began = now
	}
	took := now.Sub(p.began)
	if took >= 0 && took < sliceWork {
		return nil
	}
	p.worked += max(took, 0)
	if p.between != nil {
		p.between()
	}
	if err := pause(p.ctx, sliceRest); err != nil {
		return err
	}
	p.began = time.Now()
	return nil
}

// pause waits, or returns the error of ctx if that ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return ctx.Err() // of two that are ready select takes either
	}
}

// algorithms are those that a digest may have.
var algorithms = []string{"sha256", "sha384", "sha512"}

// place is where a file is: in which folder of the cache's, and its name there.
type place struct{ folder, name string }

func (p place) path() string { return p.folder + "/" + p.name }

func (p place) isManifest() bool { return strings.HasPrefix(p.folder, "manifests/") }

// digest returns the digest of content.
func (p place) digest() digest.Digest {
	parts := strings.Split(p.folder, "/")
	return digest.NewDigestFromEncoded(digest.Algorithm(parts[1]), p.name)
}

// eachContent calls visit for all content.
func (d *Dir) eachContent(ctx context.Context, p *pace, visit func(at place, i fileInfo) error) error {
	top, err := d.top()
	if err != nil {
		return err
	}
	for _, name := range []string{"blobs", "manifests"} {
		for _, algorithm := range algorithms {
			// By name, and not as listed: a folder that is made meanwhile has its turn too.
			for first := range 256 {
				err := eachContentIn(ctx, p, top, fmt.Sprintf("%s/%s/%02x", name, algorithm, first), visit)
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// eachContentIn calls visit for the content in one folder, such as "blobs/sha256/2c".
func eachContentIn(ctx context.Context, p *pace, top folder, in string, visit func(place, fileInfo) error) error {
	files, err := top.sub(in)
	if err != nil {
		return ignoreNoFolder(err)
	}
	defer files.close()
	names, err := files.names()
	if err != nil {
		return err
	}
	algorithm, prefix := path.Base(path.Dir(in)), path.Base(in)
	for _, file := range names {
		if err := errors.Join(ctx.Err(), p.step()); err != nil {
			return err
		}
		if !isContentName(algorithm, prefix, file) {
			continue // another program's file
		}
		i, err := files.stat(file)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && !i.regular:
		case err != nil:
			return err
		default:
			if err := visit(place{in, file}, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// eachPartial calls visit for the partial blobs that are at rest, with what they take on disk as
// their size. Those that are being fetched count as reserved.
func (d *Dir) eachPartial(ctx context.Context, p *pace, visit func(at place, i fileInfo) error) error {
	top, err := d.top()
	if err != nil {
		return err
	}
	return top.each("partial", func(in folder, name string) error {
		if err := errors.Join(ctx.Err(), p.step()); err != nil {
			return err
		}
		dgst := digestOfPartial(name)
		if dgst == "" || d.isRead(dgst) {
			return nil
		}
		i, err := in.stat(name)
		if err != nil || !i.regular {
			return ignoreMissing(err)
		}
		i.size = i.allocated
		return visit(place{"partial", name}, i)
	})
}

// A partial blob is two files: its data, and the list of what of it is there.
const (
	partialData = ".data"
	partialList = ".extents"
)

// digestOfPartial returns the digest of the data of a partial blob by its file's name,
// "sha256-HEX-SOURCE.data"; "" for another file.
func digestOfPartial(name string) digest.Digest {
	parts := strings.Split(name, "-")
	if len(parts) != 3 || !strings.HasSuffix(name, partialData) {
		return ""
	}
	return digestOf(parts[0] + "/" + parts[1])
}

// isContentName reports whether a file below blobs or manifests has the name of content.
func isContentName(algorithm, prefix, file string) bool {
	return len(prefix) == 2 && strings.HasPrefix(file, prefix) && isDigest(digest.Algorithm(algorithm), file)
}

// ValidDigest is [digest.Digest.Validate] in a tenth of the time, which counts in a walk.
func ValidDigest(d digest.Digest) bool {
	algorithm, hex, _ := strings.Cut(string(d), ":")
	return isDigest(digest.Algorithm(algorithm), hex)
}

// isDigest reports whether hex is a digest of an algorithm.
func isDigest(a digest.Algorithm, hex string) bool {
	if !a.Available() || len(hex) != 2*a.Size() {
		return false
	}
	for i := range len(hex) {
		if c := hex[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// each opens the folder called name and calls visit with it and each of its entries, in order. A
// folder that is missing has none.
func (f folder) each(name string, visit func(folder, string) error) error {
	sub, err := f.sub(name)
	if err != nil {
		return ignoreNoFolder(err)
	}
	defer sub.close()
	names, err := sub.names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if err := visit(sub, n); err != nil {
			return err
		}
	}
	return nil
}

// ignoreNoFolder returns nil for an entry that is gone, or is no folder: another program's file.
func ignoreNoFolder(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

// ignoreNotRegular returns nil for a file that is gone, or is something else than a file.
func ignoreNotRegular(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

// top returns the cache's folder.
func (d *Dir) top() (folder, error) {
	fd := int(d.folder.Fd())
	if fd < 0 {
		return folder{}, os.ErrClosed
	}
	return folder{fd}, nil
}
