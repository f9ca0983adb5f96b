package shared

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"
)

const (
	// maxWaiting is how many blobs may wait to be uploaded, and workers how many are at a time.
	maxWaiting = 1024
	workers    = 2

	// A blob is uploaded in parts of partSize. A host for whose blob others wait uploads more of them
	// at a time.
	partSize     = 16 << 20
	threads      = 2
	threadsOfAll = 4

	// slowestUpload is how many bytes a second an upload brings at least, after shortTimeout.
	slowestUpload = 1 << 20

	// uploadPause is for how long nothing is uploaded after the store has refused it.
	uploadPause = time.Minute
)

// Upload is a blob that is on disk, to be uploaded.
type Upload struct {
	Digest digest.Digest
	Size   int64

	// Allowed reports whether the blob may leave this host. It may ask a registry.
	Allowed func(ctx context.Context) bool

	// Open opens the blob. It is closed when it is uploaded.
	Open func() (File, error)
}

// File is a blob that is open.
type File interface {
	io.ReadSeekCloser
	io.ReaderAt
}

// uploads are the blobs that wait.
type uploads struct {
	claims claims

	mu            sync.Mutex
	waiting       []Upload
	bytes         int64
	running       int
	closed        bool
	why           *fault
	until         time.Time
	unconditional bool // the store knows no conditional writes of objects in parts
}

func (u *uploads) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed, u.waiting, u.bytes = true, nil, 0
}

// fault returns why nothing is uploaded; nil if nothing prevents that.
func (u *uploads) fault() *fault {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.why != nil && time.Now().After(u.until) {
		return nil
	}
	return u.why
}

func (u *uploads) failed(f *fault) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.why, u.until = f, time.Now().Add(uploadPause)
}

func (u *uploads) succeeded() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.why = nil
}

// take returns the next blob. The worker that asks ends if there is none.
func (u *uploads) take() (Upload, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.waiting) == 0 || u.closed {
		u.running--
		return Upload{}, false
	}
	next := u.waiting[0]
	u.waiting = slices.Delete(u.waiting, 0, 1)
	u.bytes -= next.Size
	return next, true
}

// add adds a blob, if there is room. start reports whether the caller must start a worker.
func (u *uploads) add(b Upload, first bool, most int64) (added, start bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed || len(u.waiting) >= maxWaiting || u.bytes+b.Size > most {
		return false, false
	}
	if first {
		u.waiting = slices.Insert(u.waiting, 0, b)
	} else {
		u.waiting = append(u.waiting, b)
	}
	u.bytes += b.Size
	if u.running < workers {
		u.running++
		start = true
	}
	return true, start
}

// Upload uploads a blob in the background, unless the store has it, refuses uploads, or too many wait.
// Blobs that this host has claimed come first.
func (s *Store) Upload(b Upload) {
	if !s.Uploads() {
		return
	}
	claimed := s.uploads.claims.has(b.Digest)
	added, start := s.uploads.add(b, claimed, s.config.Queue)
	if !added {
		s.drop(b)
		return
	}
	if start {
		s.work.Go(func() {
			for b, ok := s.uploads.take(); ok; b, ok = s.uploads.take() {
				s.upload(b)
			}
		})
	}
}

// drop leaves a blob out.
func (s *Store) drop(b Upload) {
	s.counts.dropped.Add(1)
	if s.uploads.claims.remove(b.Digest) {
		s.work.Go(func() { s.unclaim(b.Digest) })
	}
}

// upload uploads a blob, if it may leave this host and the store does not have it.
func (s *Store) upload(b Upload) {
	replace := s.bad.has(b.Digest, time.Now())
	if s.breaker.fault() != nil && !replace || s.uploads.fault() != nil {
		s.drop(b)
		return
	}
	claimed := s.uploads.claims.has(b.Digest)
	defer func() {
		if s.uploads.claims.remove(b.Digest) {
			s.unclaim(b.Digest)
		}
	}()
	ctx, cancel := context.WithTimeout(s.life, shortTimeout+time.Duration(b.Size/slowestUpload)*time.Second)
	defer cancel()
	f, err := b.Open()
	if err != nil { // it was removed meanwhile
		s.counts.dropped.Add(1)
		return
	}
	defer f.Close()
	if !b.Allowed(ctx) {
		s.counts.private.Add(1)
		return
	}
	if !replace && s.has(ctx, b.Digest) {
		s.counts.present.Add(1)
		return
	}
	err = s.send(ctx, b, f, replace, claimed)
	switch {
	case err == nil:
		s.counts.stored.Add(1)
		s.counts.bytes.Add(b.Size)
		s.bad.remove(b.Digest)
		s.uploads.succeeded()
	case isPresent(err):
		s.counts.present.Add(1)
	case s.life.Err() != nil:
		s.counts.dropped.Add(1)
	default:
		s.counts.dropped.Add(1)
		s.uploads.failed(s.uploadFault(err))
	}
}

// uploadFault says what the failure of an upload means. Reading may work all the same.
func (s *Store) uploadFault(err error) *fault {
	f := s.faultOf(err)
	if f.code == codeRefused {
		f.code, f.text = codeReadOnly, "refuses uploads"
	}
	return f
}

// send sends a blob. If it need not replace one, a host that has been quicker is not overwritten.
func (s *Store) send(ctx context.Context, b Upload, f File, replace, claimed bool) error {
	s.uploads.mu.Lock()
	conditional := !replace && !s.uploads.unconditional
	s.uploads.mu.Unlock()
	// Those who read it verify it, so that a signature of the content would add nothing.
	opts := minio.PutObjectOptions{ContentType: "application/octet-stream", PartSize: partSize, NumThreads: threads, DisableContentSha256: true}
	if claimed {
		opts.NumThreads = threadsOfAll
	}
	if conditional {
		opts.SetMatchETagExcept("*")
	}
	err := s.bucket.put(ctx, s.blobKey(b.Digest), f, b.Size, opts)
	if conditional && lacksConditions(err) {
		s.uploads.mu.Lock()
		s.uploads.unconditional = true
		s.uploads.mu.Unlock()
		return s.send(ctx, b, f, replace, claimed)
	}
	return err
}
