package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
)

// grow makes sure, for content of unknown size, that there is room for the next bytes too.
func (f *fill) grow(ctx context.Context, n int64) error {
	if f.total.Load() >= 0 || f.written.Load()+n <= f.room.reserved {
		return nil
	}
	step := max(n, growth)
	if limit := f.dir.limits.Load().MaxSize; limit > 0 {
		step = max(n, min(step, limit/32))
	}
	if f.trusted.Load() {
		f.room.trust()
	}
	f.room.wrote(f.written.Load() - f.room.written)
	if err := f.room.grow(ctx, step); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return nil
}

// fetch reads the content to its end, and resumes if the source breaks off.
func (f *fill) fetch(ctx context.Context, src Source, part Part) error {
	sum := f.want.Digest.Algorithm().Hash()
	buf := make([]byte, fillBuffer)
	for resumes := 0; ; {
		before := f.written.Load()
		err := f.drain(ctx, part.Body, sum, buf)
		_ = part.Body.Close()
		if err == nil && (f.total.Load() < 0 || f.written.Load() == f.total.Load()) {
			return f.verify(sum)
		}
		if errors.Is(err, ErrStorage) || errors.Is(err, ErrMismatch) {
			return err
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		if f.written.Load()-before >= minProgress {
			resumes = 0
		}
		for {
			if resumes++; resumes > maxResumes {
				return fmt.Errorf("it broke off at byte %d and could not be resumed: %w", f.written.Load(), err)
			}
			if err := pause(ctx, time.Duration(resumes-1)*resumePause); err != nil {
				return err
			}
			if part, err = f.reopen(ctx, src); err == nil {
				break
			}
			if errors.Is(err, ErrMismatch) {
				return err
			}
		}
	}
}

// drain copies what comes into the file and the hash, and wakes the streams.
func (f *fill) drain(ctx context.Context, body io.Reader, sum hash.Hash, buf []byte) error {
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if f.total.Load() >= 0 && f.written.Load()+int64(n) > f.total.Load() {
				return ErrMismatch
			}
			if err := f.grow(ctx, int64(n)); err != nil {
				return err
			}
			if _, err := f.file.Write(buf[:n]); err != nil {
				return fmt.Errorf("%w: %w", ErrStorage, err)
			}
			sum.Write(buf[:n])
			f.written.Add(int64(n))
			f.wake()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// reopen asks the source to continue. If the source can only begin again, what is there already is
// read and compared: two bodies are never spliced unseen.
func (f *fill) reopen(ctx context.Context, src Source) (Part, error) {
	offset := f.written.Load()
	part, err := src(ctx, offset)
	if err != nil {
		return part, err
	}
	if f.total.Load() >= 0 && part.Total >= 0 && part.Total != f.total.Load() {
		err = ErrMismatch
	} else if part.Offset != offset {
		err = f.compare(part, offset)
	}
	if err != nil {
		_ = part.Body.Close()
	}
	return part, err
}

func (f *fill) compare(part Part, until int64) error {
	ours, theirs := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := part.Offset; at < until; {
		n := min(int64(len(ours)), until-at)
		if _, err := io.ReadFull(part.Body, theirs[:n]); err != nil {
			return err
		}
		if _, err := f.file.ReadAt(ours[:n], at); err != nil {
			return fmt.Errorf("%w: %w", ErrStorage, err)
		}
		if !bytes.Equal(ours[:n], theirs[:n]) {
			return ErrMismatch
		}
		at += n
	}
	return nil
}

func (f *fill) verify(sum hash.Hash) error {
	if digest.NewDigest(f.want.Digest.Algorithm(), sum) != f.want.Digest {
		return ErrMismatch
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return ctx.Err() // of two that are ready select takes either
	}
}
