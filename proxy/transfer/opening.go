package transfer

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/sidemirror/sidemirror/internal/extent"
	"github.com/sidemirror/sidemirror/proxy/cache"
)

// open finds what is present of the blob, or asks an upstream.
func (t *transfer) open() {
	c, part, err := t.first()
	t.all.mu.Lock()
	t.mu.Lock()
	trusted := t.trusted
	t.all.mu.Unlock()
	if err == nil && t.life.Err() != nil {
		err = context.Canceled // all have left
	}
	t.isOpen = true
	if err == nil && trusted {
		t.partial.Trust() // a trusted caller has joined meanwhile
	}
	if err != nil {
		t.openErr, t.closing, t.err = err, true, err
		if errors.Is(err, cache.ErrStorage) && part.Body != nil && t.detached() {
			t.spare = &spareSource{Source: t.want.Source, part: part}
		} else {
			part.close()
		}
		close(t.opened)
		t.mu.Unlock()
		t.close(false)
		return
	}
	t.sum = newPrefix(t.want.Digest)
	t.single = t.all.single.has(t.from)
	if t.many(t.want) {
		t.ramp = newRamp(t.want.Parallel)
	}
	close(t.opened)
	if c != nil {
		t.admitted[t.want.By] = t.want.Verified
		t.attach(c, part)
	}
	if t.complete() {
		t.check()
	}
	if behind := t.have.RunFrom(0); behind > 0 && !t.checking {
		t.active.Go(func() { _ = t.sum.catchUp(t.untilEnd(), behind, true) })
	}
	t.mu.Unlock()
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users == 0 && t.err == nil && !t.checking && !t.closing {
		t.rest() // all have left while it was opened
	}
}

// first finds a partial blob that the caller may have, or opens a connection for what it wants.
func (t *transfer) first() (*conn, Part, error) {
	names := t.names
	for _, name := range names {
		p, err := t.all.dir.FindPartial(t.want.Digest, name, t.want.Untrusted)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, Part{}, errors.Join(cache.ErrStorage, err)
		}
		c, part, err := t.resume(name, p)
		if err == nil || errors.Is(err, ErrForeign) || errors.Is(err, context.Canceled) || errors.Is(err, cache.ErrStorage) {
			return c, part, err
		}
		if names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name }); len(names) == 0 {
			if errors.Is(err, ErrMismatch) { // it is another size now
				names = []string{name}
				break
			}
			return nil, part, err
		}
	}
	if len(t.want.Ranges) > 0 {
		// The others that wait need not wait for a request that is of use to one alone.
		if err := t.all.dir.MakeRoom(t.life, t.isUntrusted()); err != nil {
			return nil, Part{}, err
		}
	}
	part, err := t.ask(names)
	if err != nil {
		return nil, part, err
	}
	t.from, t.size, t.etag, t.ranged = part.From, part.Total, part.ETag, part.Ranged
	wanted, err := resolve(t.want.Ranges, t.size)
	if t.size >= 0 && err != nil {
		return nil, part, err
	}
	if t.partial, err = t.all.dir.CreatePartial(t.want.Digest, part.From, part.Total, t.isUntrusted()); err != nil {
		return nil, part, err
	}
	end := part.End
	if t.size < 0 {
		end = -1
	} else if end < 0 {
		end = t.size
	}
	if err := t.partial.Reserve(t.life, t.want.unreserved(&t.have, t.size)); err != nil {
		return nil, part, err
	}
	if part.Start > 0 && (len(wanted) == 0 || part.Start > wanted[0].Start) {
		return nil, part, ErrMismatch
	}
	return t.newConn(part.Start, end, t.want), part, nil
}

// isUntrusted reports whether only untrusted callers want the blob so far.
func (t *transfer) isUntrusted() bool {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	return !t.trusted
}

// resume uses a partial blob. If the caller has not shown that it may have the blob, the upstream
// must send it some of what is missing, or the caller must show it.
func (t *transfer) resume(name string, p *cache.Partial) (*conn, Part, error) {
	have := p.Present()
	wanted, err := resolve(t.want.Ranges, p.Size)
	if err != nil && !t.want.Granted || p.Size < 0 {
		wanted, err = []extent.Extent{{Start: 0, End: max(p.Size, 0)}}, nil
	}
	if err != nil {
		_ = p.Close()
		return nil, Part{}, err
	}
	var gap extent.Extent
	missing := false
	for _, e := range wanted {
		if gap, missing = have.Missing(e); missing {
			break
		}
	}
	if !missing && !t.want.Granted {
		_ = p.Close()
		return nil, Part{}, ErrForeign
	}
	if err := p.Reserve(t.life, t.want.unreserved(&have, p.Size)); err != nil {
		_ = p.Close()
		return nil, Part{}, err
	}
	var c *conn
	var part Part
	if !t.want.Granted {
		part, err = t.want.Source.Open(t.life, Range{gap.Start, gap.End}, Options{Only: name, Ahead: t.want.Ahead})
		t.all.requests.Add(1)
		switch {
		case err != nil:
			_ = p.Close()
			return nil, Part{}, err
		case part.Total >= 0 && part.Total != p.Size || part.Start > gap.Start:
			_ = part.Body.Close()
			p.Discard()
			return nil, Part{}, ErrMismatch
		}
		c = t.newConn(gap.Start, gap.End, t.want)
	}
	t.from, t.partial, t.have, t.size = name, p, have, p.Size
	t.etag, t.ranged = part.ETag, part.Ranged || part.Body == nil
	return c, part, nil
}

// unreserved returns for what room must be made before the ranges of w, or the whole without any, come:
// a full disk shows before the first byte.
func (w Want) unreserved(have *extent.Set, size int64) extent.Extent {
	if size < 0 || w.Doubtful {
		return extent.Extent{}
	}
	if len(w.Ranges) == 0 {
		return extent.Extent{Start: 0, End: size}
	}
	wanted, _ := resolve(w.Ranges, size) // without any there is nothing to store
	for _, e := range wanted {
		if gap, missing := have.Missing(e); missing {
			return gap
		}
	}
	return extent.Extent{}
}

// ask opens the first connection at one of the upstreams. It ends with the transfer, unless it is
// detached.
func (t *transfer) ask(names []string) (Part, error) {
	ctx, cancel := context.WithCancel(context.Background())
	t.detached = context.AfterFunc(t.life, cancel)
	t.all.requests.Add(1)
	part, err := openFirst(ctx, t.want, without(t.want.Source, names))
	if err != nil {
		cancel()
		return Part{}, err
	}
	part.Body = &endedBody{part.Body, cancel}
	return part, nil
}

// without returns the upstreams of a source that are not among names.
func without(s Source, names []string) []string {
	return slices.DeleteFunc(slices.Clone(s.Upstreams()), func(name string) bool { return slices.Contains(names, name) })
}

// openFirst asks for the first of want's ranges that the blob has.
func openFirst(ctx context.Context, want Want, without []string) (Part, error) {
	r := whole
	if len(want.Ranges) > 0 {
		r = want.Ranges[0]
	}
	o := Options{Without: without, Ahead: want.Ahead}
	part, err := want.Source.Open(ctx, r, o)
	var none *UnsatisfiableError
	if errors.As(err, &none) && len(want.Ranges) > 1 {
		all, err := resolve(want.Ranges, none.Size)
		if err != nil {
			return part, err
		}
		part, err = want.Source.Open(ctx, Range(all[0]), o)
		if err != nil {
			return part, err
		}
	} else if err != nil {
		return part, err
	}
	if part.Total < 0 && part.Start > 0 {
		// Without the size nothing can be said of the range.
		_ = part.Body.Close()
		o.Only = part.From
		return want.Source.Open(ctx, whole, o)
	}
	return part, nil
}
