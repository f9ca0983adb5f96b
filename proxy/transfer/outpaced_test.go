package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/cache"
)

// slow is the error of a body whose upstream sends a hundredth of what another one would.
type slow struct{}

func (slow) Error() string                     { return "another upstream is faster" }
func (slow) Outpaced() (rate, other float64)   { return 1000, 100_000 }
func (slow) Read([]byte) (int, error)          { return 0, fmt.Errorf("read: %w", slow{}) }
func slowAfter(n int64, b io.Reader) io.Reader { return io.MultiReader(io.LimitReader(b, n), slow{}) }
func slowOnce(n int64) func(int, io.Reader) io.Reader {
	return func(i int, b io.Reader) io.Reader {
		if i > 1 {
			return b
		}
		return slowAfter(n, b)
	}
}

const slowName, fastName = "https://slow.example", "https://fast.example"

func TestABlobThatComesSlowlyIsFetchedFromAFasterUpstreamWithinThePull(t *testing.T) {
	t.Parallel()
	content := random(21, 3<<20)
	whole := int64(len(content))
	refuse := func(int, Range, *Part) error { return errors.New("503") }
	for name, test := range map[string]struct {
		after int64
		fast  mirror
		from  []string
	}{
		"nothing has come":     {0, mirror{content: content}, []string{slowName, fastName}},
		"some has come":        {1 << 20, mirror{content: content}, []string{slowName, fastName}},
		"little is missing":    {whole - whole/200, mirror{content: content}, []string{slowName, slowName}},
		"the other one fails":  {1 << 20, mirror{content: content, answer: refuse}, []string{slowName, fastName, slowName}},
		"the other one breaks": {1 << 20, mirror{content: content, body: func(_ int, b io.Reader) io.Reader { return brokenAfter(1000, b) }}, nil},
	} {
		for _, stores := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, stored %t", name, stores), func(t *testing.T) {
				s := newSetUp(t, cache.Limits{})
				fast := test.fast
				fast.name = fastName
				g := &registry{mirrors: []*mirror{{name: slowName, content: content, body: slowOnce(test.after)}, &fast}}
				want := wantOf(g, content)
				want.Alone = !stores
				got, err := take(s.Transfers, want)
				if err != nil || !bytes.Equal(got, content) {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				if from := slices.Clone(g.from); test.from != nil && !sameUpstreams(from, test.from) {
					t.Errorf("asked: %q", from)
				}
				if last := g.from[len(g.from)-1]; test.from == nil && last != slowName {
					t.Errorf("the last one asked is %s", last)
				}
				if stores && !s.stored(t, content) {
					t.Error("it is not stored")
				}
			})
		}
	}
}

// sameUpstreams reports whether upstreams were asked in that order, one of them perhaps several times in
// a row because it broke off.
func sameUpstreams(got, want []string) bool {
	if len(want) == 2 && want[0] == want[1] {
		return slices.Equal(got, want)
	}
	return slices.Equal(slices.Compact(got), want)
}

func TestWhatIsFetchedAheadComesFromTheFasterUpstreamToo(t *testing.T) {
	t.Parallel()
	content := random(22, 1<<20)
	s := newSetUp(t, cache.Limits{})
	g := &registry{mirrors: []*mirror{{name: slowName, content: content, body: slowOnce(1000)}, {name: fastName, content: content}}}
	want := wantOf(g, content)
	want.Ahead = true
	r, err := s.Open(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.WaitStored(t.Context()); err != nil || r.Upstream() != fastName {
		t.Errorf("from %s, %v", r.Upstream(), err)
	}
	if !s.stored(t, content) {
		t.Error("it is not stored")
	}
}

// Another pull that finds the slow upstream's beginning would go on there: no other one could continue it.
func TestWhatCameSlowlyIsDiscarded(t *testing.T) {
	t.Parallel()
	content := random(23, 1<<20)
	s := newSetUp(t, cache.Limits{})
	look := func(int, Range, *Part) error {
		var err error
		for range 3000 { // its transfer ends in the background
			var p *cache.Partial
			if p, err = s.dir.FindPartial(digest.FromBytes(content), slowName, false); errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil {
				_ = p.Close()
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("it is still there: %v", err)
		return nil
	}
	g := &registry{mirrors: []*mirror{{name: slowName, content: content, body: slowOnce(400 << 10)}, {name: fastName, content: content, answer: look}}}
	if got, err := take(s.Transfers, wantOf(g, content)); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestAStreamEndsIfTheUpstreamsThatAreLeftFail(t *testing.T) {
	t.Parallel()
	content := random(24, 1<<20)
	s := newSetUp(t, cache.Limits{})
	g := &registry{mirrors: []*mirror{
		{name: slowName, content: content, body: func(_ int, b io.Reader) io.Reader { return brokenAfter(1000, b) }},
		{name: fastName, content: content, answer: func(int, Range, *Part) error { return errors.New("503") }},
	}}
	want := wantOf(g, content)
	want.Alone = true
	if got, err := take(s.Transfers, want); err == nil {
		t.Errorf("%d bytes", len(got))
	}
}
