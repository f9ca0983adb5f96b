package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

// mirror is one upstream of a [registry].
type mirror struct {
	name    string
	content []byte
	chunked bool // no lengths
	noRange bool

	// answer, if not nil, changes what is sent for a range: n counts the requests from 1 on.
	answer func(n int, r Range, p *Part) error
	// body, if not nil, wraps a body.
	body func(n int, b io.Reader) io.Reader
}

// registry is a source, and counts what is asked of it.
type registry struct {
	mirrors []*mirror

	mu       sync.Mutex
	asked    []Range
	options  []Options
	from     []string
	open     int
	mostOpen int
	sent     int64
}

func (g *registry) Upstreams() []string {
	var names []string
	for _, m := range g.mirrors {
		names = append(names, m.name)
	}
	return names
}

func (g *registry) Open(ctx context.Context, r Range, o Options) (Part, error) {
	if err := ctx.Err(); err != nil {
		return Part{}, err
	}
	err := errors.New("no upstream is left")
	for _, m := range g.mirrors {
		if o.Only != "" && o.Only != m.name || slices.Contains(o.Without, m.name) {
			continue
		}
		var p Part
		if p, err = g.openAt(ctx, m, r, o); err == nil {
			return p, nil
		}
	}
	return Part{}, err
}

func (g *registry) openAt(ctx context.Context, m *mirror, r Range, o Options) (Part, error) {
	g.mu.Lock()
	g.asked = append(g.asked, r)
	g.options = append(g.options, o)
	g.from = append(g.from, m.name)
	n := 0
	for _, from := range g.from {
		if from == m.name {
			n++
		}
	}
	g.mu.Unlock()
	size := int64(len(m.content))
	p := Part{From: m.name, End: size, Total: size, Ranged: true}
	if m.noRange {
		p.Ranged = r == whole
	} else if r != whole {
		e, ok := r.Of(size)
		if !ok {
			return p, &UnsatisfiableError{Size: size}
		}
		p.Start, p.End = e.Start, e.End
	}
	content := m.content[p.Start:p.End]
	if m.chunked && p.Start == 0 {
		p.End, p.Total = -1, -1
	}
	if m.answer != nil {
		if err := m.answer(n, r, &p); err != nil {
			return p, err
		}
	}
	if p.Body != nil {
		return p, nil
	}
	var b io.Reader = bytes.NewReader(content)
	if m.body != nil {
		b = m.body(n, b)
	}
	if gate, ok := b.(*gated); ok {
		gate.done = ctx.Done()
	}
	g.mu.Lock()
	g.open++
	g.mostOpen = max(g.mostOpen, g.open)
	g.mu.Unlock()
	p.Body = &countedBody{ctx: ctx, Reader: b, registry: g}
	return p, nil
}

// requests returns how often the registry was asked.
func (g *registry) requests() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.asked)
}

type countedBody struct {
	io.Reader
	ctx      context.Context
	registry *registry
	once     sync.Once
}

func (b *countedBody) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.Reader.Read(p)
	b.registry.mu.Lock()
	b.registry.sent += int64(n)
	b.registry.mu.Unlock()
	return n, err
}

func (b *countedBody) Close() error {
	b.once.Do(func() {
		b.registry.mu.Lock()
		b.registry.open--
		b.registry.mu.Unlock()
	})
	return nil
}

// brokenAfter breaks off after n bytes.
func brokenAfter(n int64, b io.Reader) io.Reader {
	return io.MultiReader(io.LimitReader(b, n), failing{})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// gated passes bytes on as far as it is allowed.
type gated struct {
	io.Reader
	allow chan int // so many bytes more; closed: all
	done  <-chan struct{}
	left  int
	open  bool
}

func (g *gated) Read(p []byte) (int, error) {
	for g.left == 0 && !g.open {
		select {
		case n, ok := <-g.allow:
			g.left, g.open = n, !ok
		case <-g.done:
			return 0, context.Canceled
		}
	}
	if !g.open {
		p = p[:min(len(p), g.left)]
	}
	n, err := g.Reader.Read(p)
	g.left = max(0, g.left-n)
	return n, err
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	dice := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = dice.Read(b)
	return b
}

// setUp is transfers into a cache, and what is asked of them.
type setUp struct {
	*Transfers
	dir  *cache.Dir
	path string
}

func newSetUp(t *testing.T, limits cache.Limits) *setUp {
	t.Helper()
	path := t.TempDir()
	dir, err := cache.Open(path, limits)
	if err != nil {
		t.Fatal(err)
	}
	s := &setUp{New(dir), dir, path}
	t.Cleanup(func() { s.Close(); dir.Close() })
	return s
}

func newRegistry(content []byte) *registry {
	return &registry{mirrors: []*mirror{{name: "https://one.example", content: content}}}
}

func wantOf(g *registry, content []byte, ranges ...Range) Want {
	return Want{Digest: digest.FromBytes(content), Source: g, By: "a", Ranges: ranges}
}

// take reads the ranges that want names, or the whole.
func take(s *Transfers, want Want) ([]byte, error) {
	r, err := s.Open(context.Background(), want)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var b bytes.Buffer
	if len(want.Ranges) == 0 || r.Size < 0 {
		_, err = r.CopyTo(context.Background(), &b, 0, -1)
		return b.Bytes(), err
	}
	for _, part := range want.Ranges {
		e, ok := part.Of(r.Size)
		if !ok {
			continue
		}
		if _, err := r.CopyTo(context.Background(), &b, e.Start, e.End); err != nil {
			return b.Bytes(), err
		}
	}
	return b.Bytes(), nil
}

// stored waits until nothing is fetched, and reports whether the blob is stored.
func (s *setUp) stored(t *testing.T, content []byte) bool {
	t.Helper()
	s.settle()
	b, err := s.dir.Blob(digest.FromBytes(content), false)
	if err != nil {
		return false
	}
	defer b.Close()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("what is stored is wrong: %d bytes, %v", len(got), err)
	}
	return true
}

// settle waits until no transfer is at work.
func (s *setUp) settle() {
	for {
		s.mu.Lock()
		var t *transfer
		for _, all := range s.running {
			for _, one := range all {
				if !one.idle {
					t = one
				}
			}
		}
		s.mu.Unlock()
		if t == nil {
			return
		}
		t.mu.Lock()
		progress := t.progress
		t.mu.Unlock()
		select {
		case <-progress:
		case <-t.gone:
		}
	}
}

func (r Range) String() string { return fmt.Sprintf("[%d,%d)", r.Start, r.End) }

func TestAnEmptyBlobHasNoRange(t *testing.T) {
	for _, r := range []Range{{0, -1}, {0, 10}, {5, -1}, {-5, -1}} {
		var none *UnsatisfiableError
		if got, err := resolve([]Range{r}, 0); !errors.As(err, &none) {
			t.Errorf("%+v: %v, %v", r, got, err)
		}
	}
	if got, err := resolve(nil, 0); err != nil || len(got) != 1 {
		t.Errorf("the whole: %v, %v", got, err)
	}
}
