// Package cpio writes the payload of an rpm. It takes the place of the module of the same name, which
// the rpm writer of nfpm uses, and whose archives have names that begin with "/". If root unpacks such
// an archive, as rpmlint does, cpio overwrites the files of the running host. Names in this archive
// begin with "./", as those of rpmbuild do.
package cpio

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// FileMode is a file's type and permissions, as stat(2) has them.
type FileMode uint32

// Header describes a file of the archive.
type Header struct {
	Name  string
	Mode  FileMode
	Size  int64
	Links int
}

const (
	magic   = "070701" // the portable format with hexadecimal numbers, without checksums: cpio(5)
	trailer = "TRAILER!!!"
	align   = 4
	maxSize = 1<<32 - 1
)

// ErrWriteTooLong says that more was written to a file than its header announced.
var ErrWriteTooLong = errors.New("cpio: write too long")

// Writer writes an archive.
type Writer struct {
	w      io.Writer
	inode  int
	left   int64 // of the file that is being written
	padded int64 // bytes that follow it
}

// NewWriter returns a Writer that writes to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// WriteHeader begins a file. The one before must be complete.
func (w *Writer) WriteHeader(h *Header) error {
	name := "./" + strings.TrimPrefix(strings.TrimPrefix(h.Name, "."), "/")
	return w.begin(name, h)
}

// Write writes a part of the file that WriteHeader began.
func (w *Writer) Write(p []byte) (int, error) {
	if int64(len(p)) > w.left {
		return 0, ErrWriteTooLong
	}
	n, err := w.w.Write(p)
	w.left -= int64(n)
	return n, err
}

// Close ends the archive.
func (w *Writer) Close() error {
	if err := w.begin(trailer, &Header{Links: 1}); err != nil {
		return err
	}
	return w.end()
}

// begin writes the header of a file.
func (w *Writer) begin(name string, h *Header) error {
	if err := w.end(); err != nil {
		return err
	}
	if h.Size < 0 || h.Size > maxSize {
		return fmt.Errorf("cpio: %s has %d bytes, and the format has room for %d", name, h.Size, int64(maxSize))
	}
	inode := 0
	if name != trailer {
		w.inode++
		inode = w.inode
	}
	// The fields after the size are two devices, the length of the name and a checksum.
	head := magic
	for _, field := range []int64{int64(inode), int64(h.Mode), 0, 0, int64(h.Links), 0, h.Size, 0, 0, 0, 0, int64(len(name) + 1), 0} {
		head += fmt.Sprintf("%08X", field)
	}
	head += name + "\x00"
	head += strings.Repeat("\x00", int(padding(int64(len(head)))))
	w.left, w.padded = h.Size, padding(h.Size)
	_, err := io.WriteString(w.w, head)
	return err
}

// end fills up the last file.
func (w *Writer) end() error {
	if w.left > 0 {
		return fmt.Errorf("cpio: %d bytes of a file are missing", w.left)
	}
	_, err := w.w.Write(make([]byte, w.padded))
	w.padded = 0
	return err
}

// padding returns how many bytes are missing to a multiple of four.
func padding(n int64) int64 { return (align - n%align) % align }
