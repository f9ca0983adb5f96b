package cache

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/internal/extent"
)

func open(t *testing.T, limits Limits) *Dir {
	t.Helper()
	return openAt(t, t.TempDir(), limits)
}

// openAt opens a cache that another one may have open too.
func openAt(t *testing.T, path string, limits Limits) *Dir {
	t.Helper()
	d, err := Open(path, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

const source = "https://upstream.example"

// half stores the first half of content and something of the other one.
func half(t *testing.T, d *Dir, content string) (digest.Digest, extent.Set) {
	t.Helper()
	dgst := digest.FromString(content)
	p, err := d.CreatePartial(dgst, source, int64(len(content)), false)
	if err != nil {
		t.Fatal(err)
	}
	middle := len(content) / 2
	for _, e := range []extent.Extent{{Start: 0, End: int64(middle)}, {Start: int64(middle + 2), End: int64(middle + 4)}} {
		if err := p.WriteAt(t.Context(), []byte(content[e.Start:e.End]), e.Start); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return dgst, extent.Of(extent.Extent{Start: 0, End: int64(middle)}, extent.Extent{Start: int64(middle + 2), End: int64(middle + 4)})
}

func TestWhatIsPresentOfABlobSurvivesARestart(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	dgst, want := half(t, d, "0123456789")
	if err := d.Clear(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(d.root.Name(), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	p, err := again.FindPartial(dgst, source, false)
	if err != nil {
		t.Fatal(err)
	}
	have := p.Present()
	if p.Size != 10 || !slices.Equal(have.All(), want.All()) {
		t.Errorf("%v of %d, want %v", have.All(), p.Size, want.All())
	}
	got := make([]byte, 5)
	if _, err := p.ReadAt(got, 0); err != nil || string(got) != "01234" {
		t.Errorf("%q, %v", got, err)
	}
	if err := errors.Join(p.WriteAt(t.Context(), []byte("56789"), 5), p.Commit()); err != nil {
		t.Fatal(err)
	}
	b, err := again.Blob(dgst, false)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if left, _ := os.ReadDir(filepath.Join(d.root.Name(), "partial")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWhatIsPresentBelongsToOneSource(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	dgst, _ := half(t, d, "0123456789")
	if _, err := d.FindPartial(dgst, "https://other.example", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another source finds it: %v", err)
	}
}

func TestAPartialBlobIsOpenOnce(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	dgst, _ := half(t, d, "0123456789")
	p, err := d.FindPartial(dgst, source, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.FindPartial(dgst, source, false); err == nil {
		t.Error("it is opened twice")
	}
	if _, err := d.CreatePartial(dgst, source, 10, false); !errors.Is(err, ErrStorage) {
		t.Errorf("it is made anew while it is open: %v", err)
	}
	p.Discard()
	if _, err := d.FindPartial(dgst, source, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there after it was discarded: %v", err)
	}
}

// A folder of an earlier version, and what a killed process leaves between two steps.
func TestUnusablePartialFilesAreRemovedAtTheStart(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	dgst, _ := half(t, d, "0123456789")
	name := strings.TrimPrefix(partialPath(dgst, source), "partial/")
	other := strings.TrimPrefix(partialPath(digest.FromString("other"), source), "partial/")
	third := strings.TrimPrefix(partialPath(digest.FromString("third"), source), "partial/")
	for file, content := range map[string]string{
		"2c26b46b68ffc68f-412-7": "of an earlier version", "manifest-412-8": "{}", "record-412-9": "",
		other + partialData: "data without a list", third + partialList: "extents 1 10 -\n0 10\n",
		name + partialList + ".new": "extents",
	} {
		if err := d.root.WriteFile("partial/"+file, []byte(content), fileMode); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := fetched(t, d, "whole", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Clear(); err != nil {
		t.Fatal(err)
	}
	left, err := d.partialNames()
	slices.Sort(left)
	if want := []string{name + partialData, name + partialList}; err != nil || !slices.Equal(left, want) || !d.HasBlob(whole) {
		t.Errorf("left %v, want %v; the whole blob is there: %v", left, want, d.HasBlob(whole))
	}
}

func TestAListClaimsOnlyWhatWasWrittenBeforeIt(t *testing.T) {
	t.Parallel()
	const here = "this-run"
	for name, tt := range map[string]struct {
		list string
		want []extent.Extent // nil: the list cannot be read
	}{
		"as written":                      {"extents 1 100 this-run\n0 10\n20 30\n", []extent.Extent{{Start: 0, End: 10}, {Start: 20, End: 30}}},
		"a last line without its end":     {"extents 1 100 this-run\n0 10\n20 3", []extent.Extent{{Start: 0, End: 10}}},
		"an unknown size":                 {"extents 1 -1 this-run\n0 10\n", []extent.Extent{{Start: 0, End: 10}}},
		"before the machine went down":    {"extents 1 100 another\n0 10\n", []extent.Extent{}},
		"synced before it went down":      {"extents 1 100 another\n0 10\nsynced\n20 30\n", []extent.Extent{{Start: 0, End: 10}}},
		"synced twice":                    {"extents 1 100 another\n0 10\nsynced\n20 30\nsynced\n40 50\n", []extent.Extent{{Start: 0, End: 10}, {Start: 20, End: 30}}},
		"the machine's run is not known":  {"extents 1 100 -\n0 10\n", []extent.Extent{}},
		"nothing":                         {"", nil},
		"another version":                 {"extents 2 100 this-run\n0 10\n", nil},
		"beyond the end":                  {"extents 1 100 this-run\n0 101\n", nil},
		"nothing between":                 {"extents 1 100 this-run\n10 10\n", nil},
		"backwards":                       {"extents 1 100 this-run\n10 1\n", nil},
		"a sign":                          {"extents 1 100 this-run\n+0 10\n", nil},
		"too large":                       {"extents 1 -1 this-run\n0 99999999999999999999\n", nil},
		"zeros, as after a power failure": {strings.Repeat("\x00", 100), nil},
	} {
		_, present, err := parseList([]byte(tt.list), here)
		if (err != nil) != (tt.want == nil) || !slices.Equal(present.All(), tt.want) {
			t.Errorf("%s: %v, %v, want %v", name, present.All(), err, tt.want)
		}
	}
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte("extents 1 100 b\n0 10\nsynced\n20 30\n"))
	f.Add([]byte("extents 1 -1 b\n0 9223372036854775807\n"))
	f.Fuzz(func(t *testing.T, list []byte) {
		size, present, err := parseList(list, "b")
		if err != nil {
			return
		}
		for _, e := range present.All() {
			if e.Start < 0 || e.Len() == 0 || size >= 0 && e.End > size {
				t.Fatalf("%q has %v of %d", list, e, size)
			}
		}
		again, same, err := parseList(formatList(size, "b", &present, false), "b")
		if err != nil || again != size || !slices.Equal(same.All(), present.All()) {
			t.Fatalf("%q: written again it is %v of %d, %v", list, same.All(), again, err)
		}
	})
}

// Whatever is written, and however often it is closed, opened and synced: what is said to be present
// has the bytes that were written, and the account is even in the end.
func TestAnyOperationsLeaveWhatWasWritten(t *testing.T) {
	t.Parallel()
	dice := rand.New(rand.NewPCG(5, 6))
	for round := range 20 {
		d := open(t, Limits{MaxSize: 100 << 20})
		content := make([]byte, 1+dice.IntN(6<<20))
		for i := range content {
			content[i] = byte(dice.Uint32())
		}
		size := int64(len(content))
		dgst := digest.FromBytes(content)
		untrusted := dice.IntN(2) == 0
		p, err := d.CreatePartial(dgst, source, size, untrusted)
		if err != nil {
			t.Fatal(err)
		}
		var want extent.Set
		for range 40 {
			start := dice.Int64N(size)
			e := extent.Extent{Start: start, End: start + 1 + dice.Int64N(size-start)}
			switch dice.IntN(8) {
			case 0:
				if err := p.Close(); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				if p, err = d.FindPartial(dgst, source, untrusted); errors.Is(err, fs.ErrNotExist) && want.Count() == 0 {
					p, err = d.CreatePartial(dgst, source, size, untrusted)
				}
			case 1:
				err = p.Sync()
			case 2:
				err = p.Reserve(t.Context(), e)
			case 3:
				untrusted = false
				p.Trust()
			default:
				want.Add(e)
				err = p.WriteAt(t.Context(), content[e.Start:e.End], e.Start)
			}
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			have := p.Present()
			if !slices.Equal(have.All(), want.All()) {
				t.Fatalf("round %d: %v, want %v", round, have.All(), want.All())
			}
			for _, e := range have.All() {
				got := make([]byte, e.Len())
				if _, err := p.ReadAt(got, e.Start); err != nil || !bytes.Equal(got, content[e.Start:e.End]) {
					t.Fatalf("round %d: other bytes at %v, %v", round, e, err)
				}
			}
		}
		p.Discard()
		if s := &d.space; s.used != 0 || s.usedUntrusted != 0 || s.reserved != 0 || s.reservedUntrusted != 0 || s.unwritten != 0 {
			t.Fatalf("round %d: afterwards %d and %d bytes are used, %d, %d and %d reserved", round, s.used, s.usedUntrusted, s.reserved, s.reservedUntrusted, s.unwritten)
		}
	}
}
