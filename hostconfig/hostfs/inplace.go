package hostfs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// InPlace is a write over a file that no other can be renamed over: one that is a mount point of
// its own, as a bind mount into a container is.
type InPlace struct {
	Real   string    `json:"real"`
	Mtime  time.Time `json:"mtime"` // of Before
	Before []byte    `json:"before"`
	After  []byte    `json:"after"`
}

// replaceInPlace overwrites a file, and puts the old content back at once if that fails.
func (h *Host) replaceInPlace(dir *os.File, w InPlace, mtime time.Time) error {
	done := func() error { return nil }
	if h.InPlace != nil {
		var err error
		if done, err = h.InPlace(w); err != nil {
			return err
		}
	}
	if err := h.overwrite(dir, w.Real, w.After, mtime); err != nil {
		// One more failure here leaves a torn file, which the next run repairs by [Host.Torn].
		if h.overwrite(dir, w.Real, w.Before, w.Mtime) == nil {
			_ = done()
		}
		return err
	}
	return done()
}

// overwrite writes from the start and cuts off what is left over, in that order: if it is stopped
// at any instant, the file is a beginning of data followed by what was there.
func (h *Host) overwrite(dir *os.File, real string, data []byte, mtime time.Time) error {
	fd, err := unix.Openat(int(dir.Fd()), path.Base(real), unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return Explain(real, "opening it for writing in place", err)
	}
	f := os.NewFile(uintptr(fd), real)
	defer f.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return Explain(real, "writing it in place", err)
	}
	if err := readable(real, &stat); err != nil {
		return err
	}
	half := len(data) / 2
	for _, part := range []struct {
		op       string
		from, to int
	}{{"overwrite", 0, half}, {"overwrite more", half, len(data)}} {
		if err := h.step(part.op, real); err != nil {
			return Explain(real, "writing it in place", err)
		}
		if _, err := f.WriteAt(data[part.from:part.to], int64(part.from)); err != nil {
			return Explain(real, "writing it in place", err)
		}
	}
	if err := h.step("truncate", real); err != nil {
		return Explain(real, "writing it in place", err)
	}
	if err := f.Truncate(int64(len(data))); err != nil {
		return Explain(real, "writing it in place", err)
	}
	if err := setTime(f, mtime); err != nil {
		return Explain(real, "setting its time", err)
	}
	if err := f.Sync(); err != nil {
		return Explain(real, "syncing it", err)
	}
	return nil
}

// tore reports whether now is what overwrite leaves behind when it is killed while it turns
// w.Before into w.After.
func (w *InPlace) tore(now []byte) bool {
	k := 0
	for k < len(now) && k < len(w.After) && now[k] == w.After[k] {
		k++
	}
	return len(now) == max(len(w.Before), k) && bytes.Equal(now[k:], w.Before[min(k, len(w.Before)):])
}

// Repair undoes the write in place [Host.Torn], and clears it.
func (h *Host) Repair() error {
	w := h.Torn
	if w == nil {
		return nil
	}
	was, err := h.Read(w.Real)
	if err != nil {
		return err
	}
	dir, err := h.folder(path.Dir(w.Real))
	if errors.Is(err, fs.ErrNotExist) {
		h.Torn = nil
		return nil
	} else if err != nil {
		return err
	}
	defer dir.Close()
	now, _, err := readAt(dir, path.Base(w.Real), w.Real)
	if err == nil && now != nil && !bytes.Equal(now, was.Data) {
		err = h.overwrite(dir, w.Real, w.Before, w.Mtime)
	}
	if err != nil {
		return err
	}
	h.Torn = nil
	return nil
}
