package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
)

func open(t *testing.T, limits Limits) *Dir {
	t.Helper()
	d, err := Open(t.TempDir(), limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// random gives n bytes that are not like one another.
func random(dice *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(dice.Uint32())
	}
	return b
}

// reader gives bytes until it breaks off, if it does.
type reader struct {
	io.Reader
	err error
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.EOF && r.err != nil {
		err = r.err
	}
	return n, err
}

func (r *reader) Close() error { return nil }

// plain is a source that gives the content whole, and counts.
func plain(content []byte, opened *atomic.Int32) Source {
	return func(_ context.Context, offset int64) (Part, error) {
		opened.Add(1)
		return Part{Body: &reader{Reader: bytes.NewReader(content[offset:])}, Offset: offset, Total: int64(len(content))}, nil
	}
}

// take copies [start, end) of a blob out of its fill.
func take(d *Dir, want Want, src Source, start, end int64) ([]byte, error) {
	s, err := d.Fill(context.Background(), want, src)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if end < 0 {
		end = s.Size
	}
	var b bytes.Buffer
	_, err = s.CopyTo(context.Background(), &b, start, end)
	return b.Bytes(), err
}

func TestAHundredClientsAreOneTransfer(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	content := random(rand.New(rand.NewPCG(1, 1)), 3<<20)
	want := Want{Digest: digest.FromBytes(content), By: "a"}
	var opened atomic.Int32
	release := make(chan struct{})
	src := func(ctx context.Context, offset int64) (Part, error) {
		<-release
		return plain(content, &opened)(ctx, offset)
	}
	var wait sync.WaitGroup
	var started sync.WaitGroup
	for range 100 {
		started.Add(1)
		wait.Go(func() {
			started.Done()
			if got, err := take(d, want, src, 0, -1); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	started.Wait()
	close(release)
	wait.Wait()
	if n := opened.Load(); n != 1 {
		t.Errorf("%d transfers", n)
	}
}

func TestASlowOrLeavingClientHarmsNobody(t *testing.T) { // zot#2416
	t.Parallel()
	d := open(t, Limits{})
	content := random(rand.New(rand.NewPCG(1, 2)), 2<<20)
	want := Want{Digest: digest.FromBytes(content), By: "a"}
	var opened atomic.Int32
	pr, pw := io.Pipe()
	src := func(context.Context, int64) (Part, error) {
		opened.Add(1)
		return Part{Body: pr, Total: int64(len(content))}, nil
	}
	first, err := d.Fill(context.Background(), want, src) // begins it, and never reads
	if err != nil {
		t.Fatal(err)
	}
	leaving, err := d.Fill(context.Background(), want, src)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		got, err := take(d, want, src, 0, -1)
		if err == nil && !bytes.Equal(got, content) {
			err = errors.New("wrong bytes")
		}
		done <- err
	}()
	for i := 0; i < len(content); i += 64 << 10 {
		if i == 1<<19 {
			leaving.Close()
		}
		if _, err := pw.Write(content[i : i+64<<10]); err != nil {
			t.Fatal(err)
		}
	}
	pw.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	first.Close()
	if n := opened.Load(); n != 1 {
		t.Errorf("%d transfers", n)
	}
}

func TestWhenAllLeaveEarlyTheFillEndsAndLateItIsFinished(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]int{"early": 1 << 18, "late": 3 << 18} {
		t.Run(name, func(t *testing.T) {
			d := open(t, Limits{})
			content := random(rand.New(rand.NewPCG(1, 3)), 1<<20)
			want := Want{Digest: digest.FromBytes(content), By: "a"}
			pr, pw := io.Pipe()
			ended := make(chan struct{})
			src := func(ctx context.Context, _ int64) (Part, error) {
				context.AfterFunc(ctx, func() { pr.CloseWithError(ctx.Err()); close(ended) })
				return Part{Body: pr, Total: int64(len(content))}, nil
			}
			s, err := d.Fill(context.Background(), want, src)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pw.Write(content[:part]); err != nil {
				t.Fatal(err)
			}
			for s.fill.written.Load() < int64(part) {
				runtime.Gosched()
			}
			s.Close()
			if name == "early" {
				<-ended
			}
			_, err = pw.Write(content[part:])
			pw.Close()
			<-ended // at the latest when the fill is over
			d.running.Wait()
			if kept := d.HasBlob(want.Digest); kept != (name == "late") || (err == nil) != (name == "late") {
				t.Errorf("kept is %v, the upstream's write %v", kept, err)
			}
		})
	}
}

func TestAnothersFetchIsSharedOnlyWithWhoMayHaveIt(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	content := []byte("secret content")
	dgst := digest.FromBytes(content)
	var opened atomic.Int32
	pr, pw := io.Pipe()
	src := func(context.Context, int64) (Part, error) {
		opened.Add(1)
		return Part{Body: pr, Total: int64(len(content))}, nil
	}
	s, err := d.Fill(context.Background(), Want{Digest: dgst, By: "owner"}, src)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := d.Fill(context.Background(), Want{Digest: dgst, By: "stranger"}, src); !errors.Is(err, ErrForeign) {
		t.Errorf("another caller: %v", err)
	}
	other, err := d.Fill(context.Background(), Want{Digest: dgst, By: "another caller", Granted: true}, src)
	if err != nil {
		t.Errorf("one who was let in: %v", err)
	} else {
		other.Close()
	}
	go func() { _, _ = pw.Write(content); pw.Close() }()
	if _, err := s.CopyTo(context.Background(), io.Discard, 0, s.Size); err != nil || opened.Load() != 1 {
		t.Errorf("%v, %d transfers", err, opened.Load())
	}
}

func TestARefusalIsSharedWithinOneNameOnly(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	content := []byte("content")
	dgst := digest.FromBytes(content)
	refused := errors.New("refused")
	entered, release := make(chan struct{}), make(chan struct{})
	var refusals atomic.Int32
	refuse := func(context.Context, int64) (Part, error) {
		refusals.Add(1)
		close(entered)
		<-release
		return Part{}, refused
	}
	var opened atomic.Int32
	results := make(chan error, 3)
	go func() { _, err := take(d, Want{Digest: dgst, By: "bad"}, refuse, 0, -1); results <- err }()
	<-entered
	go func() { _, err := take(d, Want{Digest: dgst, By: "bad"}, refuse, 0, -1); results <- err }()
	good := make(chan error, 1)
	go func() {
		_, err := take(d, Want{Digest: dgst, By: "good", Granted: true}, plain(content, &opened), 0, -1)
		good <- err
	}()
	d.mu.Lock()
	f := d.fills[dgst]
	d.mu.Unlock()
	for joined := 0; joined < 3; {
		f.mu.Lock()
		joined = f.streams
		f.mu.Unlock()
		runtime.Gosched()
	}
	close(release)
	for range 2 {
		if err := <-results; !errors.Is(err, refused) {
			t.Errorf("in the same name: %v", err)
		}
	}
	if err := <-good; err != nil || opened.Load() != 1 || refusals.Load() != 1 {
		t.Errorf("in another name: %v; %d refusals", err, refusals.Load())
	}
}

func TestATamperedOrShortBlobDoesNotStay(t *testing.T) { // harbor#22555
	t.Parallel()
	content := random(rand.New(rand.NewPCG(1, 4)), 1<<20)
	tampered := bytes.Clone(content)
	tampered[len(content)/2] ^= 1
	for name, src := range map[string]Source{
		"tampered": func(context.Context, int64) (Part, error) {
			return Part{Body: &reader{Reader: bytes.NewReader(tampered)}, Total: int64(len(content))}, nil
		},
		"tampered, length unknown": func(context.Context, int64) (Part, error) {
			return Part{Body: &reader{Reader: bytes.NewReader(tampered)}, Total: -1}, nil
		},
		"short": func(context.Context, int64) (Part, error) {
			return Part{Body: &reader{Reader: bytes.NewReader(content[:1000])}, Total: 1000}, nil
		},
		"nothing": func(context.Context, int64) (Part, error) {
			return Part{Body: &reader{Reader: bytes.NewReader(nil)}, Total: 0}, nil
		},
		"long": func(context.Context, int64) (Part, error) {
			return Part{Body: &reader{Reader: bytes.NewReader(append(bytes.Clone(content), 'x'))}, Total: int64(len(content))}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, Limits{})
			want := Want{Digest: digest.FromBytes(content), By: "a"}
			got, err := take(d, want, src, 0, -1)
			if !errors.Is(err, ErrMismatch) || bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			d.running.Wait()
			if _, err := d.Blob(want.Digest, false); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it is kept: %v", err)
			}
			if left, _ := os.ReadDir(filepath.Join(d.root.Name(), "partial")); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// Whatever clients come, go, and ask for, and however the source breaks off, lies and
// begins anew: every client has the exact bytes or an error, and what is kept is right.
func TestAnyInterleavingGivesExactBytesOrAnError(t *testing.T) {
	t.Parallel()
	dice := rand.New(rand.NewPCG(3, 4))
	right := 0
	const rounds = 60
	for round := range rounds {
		d := open(t, Limits{})
		content := random(dice, 1+dice.IntN(1<<20))
		size := int64(len(content))
		evil := dice.IntN(3) == 0
		src := faulty(content, rand.New(rand.NewPCG(uint64(round), 5)), evil)
		want := Want{Digest: digest.FromBytes(content), By: "a"}
		var wait sync.WaitGroup
		var whole atomic.Int32
		for range 8 {
			start := dice.Int64N(size)
			end := start + 1 + dice.Int64N(size-start)
			if dice.IntN(2) == 0 {
				start, end = 0, size
			}
			leaves := dice.IntN(4) == 0
			wait.Go(func() {
				s, err := d.Fill(context.Background(), want, src)
				if err != nil {
					return
				}
				defer s.Close()
				if s.Size < 0 {
					start, end = 0, -1
				}
				var w io.Writer = &bytes.Buffer{}
				b := w.(*bytes.Buffer)
				if leaves {
					w = &leaver{Writer: b, after: 1 << 16}
				}
				_, err = s.CopyTo(context.Background(), w, start, end)
				if end < 0 {
					end = size
				}
				if err == nil && !bytes.Equal(b.Bytes(), content[start:end]) {
					t.Errorf("round %d: a clean end with wrong bytes: %d of [%d, %d)", round, b.Len(), start, end)
				} else if err == nil {
					whole.Add(1)
				}
			})
		}
		wait.Wait()
		d.running.Wait()
		if b, err := d.Blob(want.Digest, false); err == nil {
			kept, err := io.ReadAll(b)
			b.Close()
			if err != nil || !bytes.Equal(kept, content) {
				t.Errorf("round %d: what is kept is wrong: %v", round, err)
			}
			right++
		}
	}
	if right < rounds/4 {
		t.Errorf("only %d of %d were kept", right, rounds)
	}
}

// leaver is a client that goes away.
type leaver struct {
	io.Writer
	after int
}

func (l *leaver) Write(b []byte) (int, error) {
	if l.after -= len(b); l.after < 0 {
		return 0, errors.New("gone")
	}
	return l.Writer.Write(b)
}

// faulty is a source whose first answers break off, begin anew, and if evil lie.
func faulty(content []byte, dice *rand.Rand, evil bool) Source {
	var mu sync.Mutex
	faults := dice.IntN(4)
	unsized := dice.IntN(4) == 0
	return func(_ context.Context, offset int64) (Part, error) {
		mu.Lock()
		defer mu.Unlock()
		if dice.IntN(3) == 0 {
			offset = 0
		}
		body := bytes.Clone(content[offset:])
		r := &reader{}
		if faults > 0 && len(body) > 0 {
			faults--
			switch dice.IntN(3) {
			case 0:
				body, r.err = body[:dice.IntN(len(body))], fmt.Errorf("reset")
			case 1:
				if evil {
					body[dice.IntN(len(body))] ^= 1
				}
			}
		}
		r.Reader = bytes.NewReader(body)
		p := Part{Body: r, Offset: offset, Total: int64(len(content))}
		if unsized {
			p.Total = -1
		}
		return p, nil
	}
}
