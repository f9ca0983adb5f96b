package cache

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// heldInMemory reads a tag until its record is in memory.
func heldInMemory(t *testing.T, d *Dir, r Repository, tag string) {
	t.Helper()
	name := tagPath(r, tag)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		d.Tag(r, tag)
		file, err := d.versionOf(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := d.recentTags.get(name, file); ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the record is not in memory after a minute")
		}
	}
}

// A tag's record is held in memory as long as nothing changes it.
func TestATagInMemoryFollowsItsRecord(t *testing.T) {
	t.Parallel()
	old, next := digest.FromString("old"), digest.FromString("next")
	meaning := func(dgst digest.Digest) Meaning {
		return Meaning{Digest: dgst, MediaType: manifestType, Seen: time.Now()}
	}
	type change func(t *testing.T, path string, d, other *Dir) error
	tests := map[string]struct {
		change change
		want   digest.Digest // "" if the tag is not known then
	}{
		"nothing happens": {func(*testing.T, string, *Dir, *Dir) error { return nil }, old},
		"this process records another meaning": {func(_ *testing.T, _ string, d, _ *Dir) error {
			return d.SetTag(alpine, "3", meaning(next))
		}, next},
		"another process records another meaning": {func(_ *testing.T, _ string, _, other *Dir) error {
			return other.SetTag(alpine, "3", meaning(next))
		}, next},
		"another process records many, the last of the same size": {func(_ *testing.T, _ string, _, other *Dir) error {
			for i := range 50 {
				if err := other.SetTag(alpine, "3", meaning(digest.FromString(fmt.Sprint(i)))); err != nil {
					return err
				}
			}
			return other.SetTag(alpine, "3", meaning(next))
		}, next},
		"another process takes the meaning away": {func(_ *testing.T, _ string, _, other *Dir) error {
			return other.Untag(alpine, "3", old)
		}, ""},
		"another process removes the repository": {func(_ *testing.T, _ string, _, other *Dir) error {
			return other.RemoveRepository(alpine)
		}, ""},
		"the record is written to in place": {func(_ *testing.T, path string, _, _ *Dir) error {
			file := filepath.Join(path, tagPath(alpine, "3"))
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			return os.WriteFile(file, []byte(strings.ReplaceAll(string(data), old.Encoded(), next.Encoded())), fileMode)
		}, next},
		"the record is cut off": {func(_ *testing.T, path string, _, _ *Dir) error {
			return os.Truncate(filepath.Join(path, tagPath(alpine, "3")), 10)
		}, ""},
	}
	type both struct {
		path     string
		d, other *Dir
	}
	dirs := map[string]both{} // all at first, since each record takes a while to be held
	for name := range tests {
		path := t.TempDir()
		dirs[name] = both{path, openAt(t, path, Limits{}), openAt(t, path, Limits{})}
		if err := dirs[name].d.SetTag(alpine, "3", meaning(old)); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path, d, other := dirs[name].path, dirs[name].d, dirs[name].other
			heldInMemory(t, d, alpine, "3")
			if err := test.change(t, path, d, other); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				got := d.Tag(alpine, "3")
				if test.want == "" && len(got) == 0 || len(got) == 1 && got[0].Digest == test.want {
					continue
				}
				t.Errorf("got %+v, want %q", got, test.want)
			}
		})
	}
}

func TestARecordThatHasJustBeenWrittenIsNotHeldInMemory(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, test := range []struct {
		changed time.Time
		want    bool
	}{
		{now, false},
		{now.Add(time.Hour), false}, // the clock was ahead
		{now.Add(-recordSettles - time.Second), true},
		{time.Unix(0, 0), true},
	} {
		v := fileVersion{}
		v.changed.Sec, v.changed.Nsec = test.changed.Unix(), int64(test.changed.Nanosecond())
		if v.settled() != test.want {
			t.Errorf("a record of %v, now %v: settled is %v", test.changed, now, !test.want)
		}
	}
}

func TestTheTagsInMemoryAreBounded(t *testing.T) {
	t.Parallel()
	var c recentTags
	const size = 10 << 10
	for i := range 1000 {
		c.put(fmt.Sprint(i), fileVersion{inode: uint64(i), size: size}, []Meaning{{Size: int64(i)}})
		c.get("0", fileVersion{size: size}) // used again and again
	}
	if c.bytes > recentTagBytes || len(c.byName) != c.order.Len() || c.order.Len() < recentTagBytes/size/2 {
		t.Errorf("%d bytes, %d records in order, %d by name", c.bytes, c.order.Len(), len(c.byName))
	}
	if _, ok := c.get("0", fileVersion{size: size}); !ok {
		t.Error("the record that was used last is gone")
	}
	if _, ok := c.get("1", fileVersion{inode: 1, size: size}); ok {
		t.Error("a record that was not used for long is there")
	}
	for _, name := range slices.Collect(maps.Keys(c.byName)) {
		c.put(name, fileVersion{}, nil) // a new version replaces the old one
	}
	if n := int64(len(c.byName)); c.bytes > 4*n {
		t.Errorf("%d bytes for %d names and nothing else", c.bytes, n)
	}
}
