package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Stream reads a blob while it is fetched. It must be closed.
type Stream struct {
	// Size is the blob's size in bytes; -1 as long as it is unknown.
	Size int64

	fill  *fill
	file  *os.File // of its own, so that each stream has its place in it
	close sync.Once
}

func (f *fill) stream() (*Stream, error) {
	// Its name may still be the partial one, or already the final one.
	file, err := f.dir.root.Open(f.name)
	if err != nil {
		file, err = f.dir.root.Open(contentPath("blobs", f.want.Digest))
	}
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.err != nil { // it is over already, and its file gone
			return nil, f.err
		}
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return &Stream{Size: f.total.Load(), fill: f, file: file}, nil
}

// Close leaves the fill. If it was the last stream, the fill ends, unless most of the blob is
// there.
func (s *Stream) Close() error {
	var err error
	s.close.Do(func() {
		s.fill.leave()
		err = s.file.Close()
	})
	return err
}

// CopyTo writes the bytes from start to end (-1: all there will be) to w as they come in. Files go
// to the network by sendfile. The last byte, also of a range, goes out only when the whole blob is
// verified: a client whose response ends cleanly has the content of the digest.
func (s *Stream) CopyTo(ctx context.Context, w io.Writer, start, end int64) (int64, error) {
	if _, err := s.file.Seek(start, io.SeekStart); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	var sent int64
	// At least once: an empty range is verified too.
	for first := true; first || end < 0 || start+sent < end; first = false {
		there, over, err := s.wait(ctx, start+sent, end)
		if err != nil {
			return sent, err
		}
		if n := there - (start + sent); n > 0 {
			m, err := io.Copy(w, &io.LimitedReader{R: s.file, N: n})
			sent += m
			if err != nil {
				return sent, err
			}
			if m < n {
				return sent, fmt.Errorf("%w: the file is shorter than what was written to it", ErrStorage)
			}
		} else if over {
			return sent, nil
		}
	}
	return sent, nil
}

// wait waits until there is more than offset to send of what ends at end, or the end has come. It
// returns how much may be sent, and whether that is all.
func (s *Stream) wait(ctx context.Context, offset, end int64) (there int64, over bool, err error) {
	f := s.fill
	for {
		f.mu.Lock()
		there, over, err = f.written.Load(), f.ended, f.err
		progress := f.progress
		f.mu.Unlock()
		if errors.Is(err, context.Canceled) {
			err = errors.New("the fetch was ended")
		}
		if err != nil {
			return 0, false, err
		}
		if end >= 0 && over {
			there = min(there, end)
		} else if end >= 0 {
			there = min(there, end-1)
		}
		if over || there > offset {
			return there, over, nil
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return 0, false, ctx.Err()
		}
	}
}
