package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sidemirror/sidemirror/internal/extent"
)

// Range is an interval of a blob whose size may be unknown.
type Range struct {
	Start int64 // of the first byte; if negative, that many bytes before the end
	End   int64 // after the last byte; -1: the blob's end
}

// whole is the range of all bytes.
var whole = Range{0, -1}

// Of returns the bytes of the range in a blob of that size. ok is false if the blob has none of
// them.
func (r Range) Of(size int64) (e extent.Extent, ok bool) {
	if r.Start < 0 {
		return extent.Extent{Start: max(0, size+r.Start), End: size}, size > 0
	}
	e = extent.Extent{Start: r.Start, End: size}
	if r.End >= 0 {
		e.End = min(size, r.End)
	}
	return e, r == whole || e.Start < e.End
}

// resolve returns the bytes of all ranges that a blob of that size has; the whole without any range.
func resolve(ranges []Range, size int64) ([]extent.Extent, error) {
	if len(ranges) == 0 {
		return []extent.Extent{{Start: 0, End: size}}, nil
	}
	var all []extent.Extent
	for _, r := range ranges {
		if e, ok := r.Of(size); ok && e.Len() > 0 { // of nothing there is no range
			all = append(all, e)
		}
	}
	if len(all) == 0 {
		return nil, &UnsatisfiableError{Size: size}
	}
	return all, nil
}

// Source opens a blob at upstreams, in the identity of one caller. It outlives the request that it
// was made for.
type Source interface {
	// Upstreams returns the names of the upstreams in the order in which they are asked. Bytes that
	// are not verified are shared only by callers of the same upstream.
	Upstreams() []string

	// Open asks for a range. The error is an UnsatisfiableError if the blob has nothing of it, and
	// wraps ErrNoConnection if the upstream has as many connections as it may. If a Read of the body
	// fails with an error that has the method Outpaced() (rate, other float64), another upstream sends
	// so many bytes in a second, and this one so few.
	Open(ctx context.Context, r Range, o Options) (Part, error)
}

// Options say how a range is asked for.
type Options struct {
	Only     string   // the upstream to ask; empty: any
	Without  []string // upstreams not to ask
	Separate bool     // over a TCP connection of its own
	Resume   bool     // part of the blob has come already
	Ahead    bool     // no client waits for it
}

// Part is what an upstream sends for a range. It may be another one: a server may ignore a range
// and send the whole.
type Part struct {
	Body   io.ReadCloser
	From   string // the upstream
	Start  int64  // of the body's first byte
	End    int64  // after its last byte; -1: unknown
	Total  int64  // the whole blob's size; -1: unknown
	ETag   string
	Ranged bool // the upstream serves ranges
}

// close ends the part, if it is open.
func (p Part) close() {
	if p.Body != nil {
		_ = p.Body.Close()
	}
}

// Errors of a transfer. Those of a source are passed on as they are.
var (
	// ErrMismatch says that the bytes that came do not match the digest. A client that was sent
	// some of them must see a broken connection.
	ErrMismatch = errors.New("the bytes do not match the digest")

	// ErrForeign says that the blob is being fetched, or was fetched in part, for another caller,
	// and that this one has not shown that it may have it.
	ErrForeign = errors.New("it is being fetched for another caller")

	// ErrStored says that the blob is whole in the cache.
	ErrStored = errors.New("it is stored")

	// ErrNoConnection says that the upstream has as many connections as it may.
	ErrNoConnection = errors.New("no connection to the upstream is free")

	errClosed = errors.New("the fetch was ended")
)

// UnsatisfiableError says that a blob has no byte of the ranges asked for.
type UnsatisfiableError struct{ Size int64 }

func (e *UnsatisfiableError) Error() string {
	return fmt.Sprintf("the blob has %d bytes and none of the range", e.Size)
}

// brokenError says that an upstream broke off again and again.
type brokenError struct {
	at  int64
	err error
}

func (e *brokenError) Error() string {
	return fmt.Sprintf("the blob broke off at byte %d and could not be resumed: %v", e.at, e.err)
}

func (e *brokenError) Unwrap() error { return e.err }

const (
	// maxResumes is how often in a row a blob is resumed without at least minProgress bytes of
	// progress: an upstream that sends one byte per response would be asked for ever.
	maxResumes  = 3
	minProgress = 256 << 10

	// bufferSize is how many bytes are read at a time. The last ones of a whole blob are delivered
	// when all of it is verified, so that a short blob that is wrong shows before its first byte.
	bufferSize = 256 << 10
	heldBack   = 64 << 10
)
