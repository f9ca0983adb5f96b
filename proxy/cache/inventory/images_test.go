package inventory_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/cache/inventory"
)

const indexType = "application/vnd.oci.image.index.v1+json"

// folder is a cache that images are put into.
type folder struct {
	*cache.Dir
	t    *testing.T
	path string
}

func newFolder(t *testing.T) *folder {
	path := t.TempDir()
	return &folder{opened(t, path), t, path}
}

// blob keeps a blob and waits until it is on disk.
func (f *folder) blob(content string) digest.Digest {
	f.t.Helper()
	dgst := digest.FromString(content)
	if f.HasBlob(dgst) {
		return dgst
	}
	p, err := f.CreatePartial(dgst, "https://upstream.example", int64(len(content)), false)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := errors.Join(p.WriteAt(f.t.Context(), []byte(content), 0), p.Commit()); err != nil {
		f.t.Fatal(err)
	}
	return dgst
}

func described(dgst digest.Digest, size int) string {
	return fmt.Sprintf(`{"digest":%q,"size":%d}`, dgst, size)
}

// image keeps an image of one platform, and gives its manifest's digest.
func (f *folder) image(r cache.Repository, tag, config string, layers ...string) digest.Digest {
	f.t.Helper()
	var list []string
	for _, l := range layers {
		list = append(list, described(f.blob(l), len(l)))
	}
	for _, content := range append(layers, config) {
		if err := f.HoldBlob(r, f.blob(content), cache.Learned{Upstream: "https://upstream.example"}); err != nil {
			f.t.Fatal(err)
		}
	}
	dgst := putManifest(f.t, f.Dir, r, fmt.Sprintf(`{"config":%s,"layers":[%s]}`, described(f.blob(config), len(config)), strings.Join(list, ",")))
	f.tag(r, tag, dgst, manifestType)
	return dgst
}

func holdsBlob(d *cache.Dir, r cache.Repository, dgst digest.Digest) bool {
	return len(d.BlobHoldings(r, dgst)) > 0
}

func (f *folder) tag(r cache.Repository, tag string, dgst digest.Digest, mediaType string) {
	f.t.Helper()
	if tag == "" {
		return
	}
	if err := f.SetTag(r, tag, cache.Meaning{Digest: dgst, MediaType: mediaType, Seen: time.Now(), Learned: cache.Learned{Upstream: "https://upstream.example"}}); err != nil {
		f.t.Fatal(err)
	}
}

// used makes an image used some time ago.
func (f *folder) used(manifest digest.Digest, ago time.Duration) {
	f.t.Helper()
	at := time.Now().Add(-ago)
	if err := os.Chtimes(contentFile(f.path, "manifests", manifest), at, at); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) lose(dgst digest.Digest) {
	f.t.Helper()
	if err := os.Remove(contentFile(f.path, "blobs", dgst)); err != nil {
		f.t.Fatal(err)
	}
}

// listed is what a cache stores.
type listed struct {
	Images []inventory.Image
	inventory.Totals
}

func (f *folder) inventory() listed {
	f.t.Helper()
	var all listed
	var err error
	all.Totals, err = inventory.List(f.t.Context(), f.Dir, func(i inventory.Image) error {
		all.Images = append(all.Images, i)
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.compareWithEachRepository(all.Images)
	return all
}

// compareWithEachRepository compares all images with those that a look at each repository alone finds.
func (f *folder) compareWithEachRepository(all []inventory.Image) {
	f.t.Helper()
	repositories, err := f.Repositories(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	var alone []inventory.Image
	for _, r := range repositories {
		_, err := inventory.ListIn(f.t.Context(), f.Dir, []cache.Repository{r}, func(i inventory.Image) error {
			alone = append(alone, i)
			return nil
		})
		if err != nil {
			f.t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(alone, all) {
		f.t.Errorf("each repository alone has %+v, all of them together %+v", alone, all)
	}
}

func namesOf(images []inventory.Image) string {
	var all []string
	for _, i := range images {
		all = append(all, i.Name())
	}
	return strings.Join(all, " ")
}

const linuxAMD64 = `{"os":"linux","architecture":"amd64"}`

var (
	other  = cache.Repository{Registry: "ghcr.io", Name: "acme/app/other"}
	hidden = cache.Repository{Registry: "localhost:5000", Name: "x"}
)

func TestAnImageIsListedByEachOfItsNamesWithItsSizeOnDisk(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	m := f.image(app, "1.0", linuxAMD64, "base", "layer")
	f.tag(app, "latest", m, manifestType)
	f.image(hidden, "", linuxAMD64, "base")
	inv := f.inventory()
	if got := namesOf(inv.Images); !strings.HasPrefix(got, "ghcr.io/acme/app:1.0 ghcr.io/acme/app:latest localhost:5000/x@sha256:") || len(inv.Images) != 3 {
		t.Fatalf("images %s", got)
	}
	i := inv.Images[0]
	info, err := os.Stat(contentFile(f.path, "manifests", m))
	if err != nil {
		t.Fatal(err)
	}
	want := int64(len(linuxAMD64)+len("base")+len("layer")) + info.Size()
	if i.Size != want || !i.Whole() || i.Digest != m || i.Upstream != "upstream.example" || !i.Used.Equal(info.ModTime()) {
		t.Errorf("%+v; want %d bytes", i, want)
	}
	if len(i.Platforms) != 1 || i.Platforms[0].Name != "linux/amd64" || i.Platforms[0].Size != want {
		t.Errorf("platforms %+v", i.Platforms)
	}
	all := want + inv.Images[2].Size - int64(len(linuxAMD64)+len("base")) // which they share
	if inv.Bytes != all || inv.Loose != 0 {
		t.Errorf("%d bytes in all, %d loose; want %d", inv.Bytes, inv.Loose, all)
	}
}

func TestAnImageThatLacksALayerSaysSo(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	m := f.image(app, "1.0", linuxAMD64, "base", "layer", "layer")
	f.lose(digest.FromString("layer"))
	i := f.inventory().Images[0]
	if i.Whole() || len(i.Platforms) != 1 || !slices.Equal(i.Platforms[0].Missing, []digest.Digest{digest.FromString("layer")}) {
		t.Errorf("%+v", i)
	}
	if err := os.Remove(contentFile(f.path, "manifests", m)); err != nil {
		t.Fatal(err)
	}
	inv := f.inventory()
	i = inv.Images[0]
	if i.Whole() || i.Size != 0 || len(i.Platforms) != 1 || !slices.Equal(i.Platforms[0].Missing, []digest.Digest{m}) {
		t.Errorf("without its manifest: %+v", i)
	}
	if inv.Loose != int64(len(linuxAMD64)+len("base")) {
		t.Errorf("%d bytes are loose", inv.Loose)
	}
}

func TestAnIndexHasThePlatformsThatWerePulled(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	amd, arm := f.image(app, "", "{}", "amd"), f.image(app, "", "{}", "arm")
	foreign := f.image(hidden, "", "{}", "s390x") // on disk, but not through this repository
	index := putManifest(t, f.Dir, app, fmt.Sprintf(`{"manifests":[
		{"digest":%q,"platform":{"os":"linux","architecture":"amd64"}},
		{"digest":%q,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}},
		{"digest":%q,"platform":{"os":"linux","architecture":"s390x"}},
		{"digest":%q,"platform":{"os":"linux","architecture":"riscv64"}}]}`, amd, arm, foreign, digest.FromString("never pulled")))
	f.tag(app, "2", index, indexType)
	f.lose(digest.FromString("arm"))
	inv := f.inventory()
	if got := namesOf(inv.Images); !strings.HasPrefix(got, "ghcr.io/acme/app:2 localhost:5000/x@") || len(inv.Images) != 2 {
		t.Fatalf("images %s", got)
	}
	i := inv.Images[0]
	if len(i.Platforms) != 2 || i.Platforms[0].Name != "linux/amd64" || i.Platforms[1].Name != "linux/arm64/v8" {
		t.Fatalf("%+v", i.Platforms)
	}
	if len(i.Platforms[0].Missing) != 0 || len(i.Platforms[1].Missing) != 1 || i.Whole() {
		t.Errorf("%+v", i.Platforms)
	}
}

func TestHostileManifestsAreListedAndEndNothing(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	for _, body := range []string{"", "[]", "{", `{"manifests":3}`, `{"manifests":[{"digest":"../../x"}]}`, `{"layers":[{"digest":"sha256:x","size":"many"}]}`} {
		putManifest(t, f.Dir, app, body)
	}
	self := `{"manifests":[` + described(digest.FromString("[]"), 1) + `]}`
	f.tag(app, "odd", putManifest(t, f.Dir, app, self), indexType)
	if err := os.WriteFile(filepath.Join(f.path, "repositories/ghcr.io/acme/app/_tags/torn"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if inv := f.inventory(); len(inv.Images) != 6 {
		t.Errorf("images %s", namesOf(inv.Images))
	}
}

func prune(t *testing.T, f *folder, s inventory.Selection, dry bool) *inventory.Pruned {
	t.Helper()
	p, err := inventory.Prune(t.Context(), f.Dir, s, dry)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func byName(name string) inventory.Selection {
	return inventory.Selection{Match: func(i inventory.Image) bool { return i.Name() == name }}
}

func TestWhatAnotherImageListsStays(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	m := f.image(app, "1", linuxAMD64, "base", "one")
	f.image(other, "2", "{}", "base", "two")
	would := prune(t, f, byName("ghcr.io/acme/app:1"), true)
	if got := f.inventory(); len(got.Images) != 2 {
		t.Fatal("it was not only said")
	}
	did := prune(t, f, byName("ghcr.io/acme/app:1"), false)
	info := int64(len(linuxAMD64) + len("one"))
	if did.Freed != would.Freed || did.Files != 3 || would.Files != 3 || did.Freed <= info {
		t.Errorf("would free %d in %d files, did %d in %d", would.Freed, would.Files, did.Freed, did.Files)
	}
	for content, want := range map[string]bool{"base": true, "two": true, "{}": true, "one": false, linuxAMD64: false} {
		if got := f.HasBlob(digest.FromString(content)); got != want {
			t.Errorf("%s is kept: %v", content, got)
		}
	}
	if holdsBlob(f.Dir, app, digest.FromString("base")) || !holdsBlob(f.Dir, other, digest.FromString("base")) {
		t.Error("the memberships are not those of what stays")
	}
	if _, err := f.Manifest(app, m, false); !errors.Is(err, fs.ErrNotExist) || len(f.Tag(app, "1")) != 0 {
		t.Errorf("the manifest or the tag is there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(f.path, "repositories/ghcr.io/acme/app/other/_tags/2")); err != nil {
		t.Errorf("a repository in that folder went too: %v", err)
	}
	prune(t, f, byName("ghcr.io/acme/app/other:2"), false)
	if left, err := os.ReadDir(filepath.Join(f.path, "repositories")); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	if inv := f.inventory(); inv.Bytes != 0 {
		t.Errorf("%d bytes are left", inv.Bytes)
	}
}

func TestOneOfTwoTagsOfAnImageFreesNothing(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	m := f.image(app, "1", linuxAMD64, "base")
	f.tag(app, "latest", m, manifestType)
	if did := prune(t, f, byName("ghcr.io/acme/app:latest"), false); did.Freed != 0 || len(did.Images) != 1 {
		t.Errorf("%+v", did)
	}
	if inv := f.inventory(); namesOf(inv.Images) != "ghcr.io/acme/app:1" || !inv.Images[0].Whole() {
		t.Errorf("left %s", namesOf(inv.Images))
	}
}

func TestPruningByAgeTakesWhatWasNotUsed(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.used(f.image(app, "old", linuxAMD64, "base", "old"), 48*time.Hour)
	f.used(f.image(app, "new", linuxAMD64, "base", "new"), time.Hour)
	f.blob("of no image, and new")
	did := prune(t, f, inventory.Selection{UsedBefore: time.Now().Add(-24 * time.Hour)}, false)
	if namesOf(did.Images) != "ghcr.io/acme/app:old" || len(did.Loose) != 0 || f.HasBlob(digest.FromString("old")) || !f.HasBlob(digest.FromString("base")) {
		t.Errorf("removed %s and %d", namesOf(did.Images), len(did.Loose))
	}
}

func TestPruningByAgeLeavesWhatANewImageOfAnotherRepositoryLists(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	f.used(f.image(hidden, "old", linuxAMD64, "base", "old"), 48*time.Hour)
	f.used(f.image(hidden, "new", linuxAMD64, "hidden"), time.Hour)
	f.used(f.image(app, "new", linuxAMD64, "base"), time.Hour)
	base, old := digest.FromString("base"), digest.FromString("old")
	did := prune(t, f, inventory.Selection{UsedBefore: time.Now().Add(-24 * time.Hour)}, false)
	if len(did.Images) != 1 || f.HasBlob(old) || !f.HasBlob(base) {
		t.Errorf("removed %s; the old layer is stored: %v, the shared one: %v", namesOf(did.Images), f.HasBlob(old), f.HasBlob(base))
	}
	if holdsBlob(f.Dir, hidden, base) || !holdsBlob(f.Dir, hidden, digest.FromString("hidden")) || !holdsBlob(f.Dir, app, base) {
		t.Error("a repository holds what none of its images lists, or not what one does")
	}
}

func TestPruningToASizeTakesWhatWasUsedLongestAgoAndNoMore(t *testing.T) {
	t.Parallel()
	f := newFolder(t)
	big := func(c string) string { return strings.Repeat(c, 10_000) }
	for i, tag := range []string{"c", "a", "b"} {
		f.used(f.image(app, tag, linuxAMD64, big(tag)), time.Duration(9-i)*time.Hour)
	}
	f.blob(big("loose"))
	did := prune(t, f, inventory.Selection{DownTo: 75_000}, false)
	if inv := f.inventory(); namesOf(did.Images) != "ghcr.io/acme/app:c" || inv.Bytes > 75_000 || !inv.Images[0].Whole() {
		t.Errorf("removed %s, %d bytes are left", namesOf(did.Images), inv.Bytes)
	}
	did = prune(t, f, inventory.Selection{DownTo: 1}, false)
	if len(did.Images) != 2 || len(did.Loose) != 1 || f.inventory().Bytes != 0 {
		t.Errorf("removed %s and %d", namesOf(did.Images), len(did.Loose))
	}
}

func TestAFolderThatWasEmptiedUnderUsIsFilledAgain(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(*folder){
		"blob":     func(f *folder) { f.blob("layer") },
		"manifest": func(f *folder) { putManifest(t, f.Dir, app, "{}") },
		"record":   func(f *folder) { f.tag(app, "1", digest.FromString("{}"), manifestType) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFolder(t)
			f.image(app, "1", linuxAMD64, "base")
			all, err := filepath.Glob(filepath.Join(f.path, "*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range all {
				if err := os.RemoveAll(part); err != nil {
					t.Fatal(err)
				}
			}
			if inv := f.inventory(); inv.Bytes != 0 || len(inv.Images) != 0 {
				t.Errorf("empty, it has %+v", inv)
			}
			use(f)
		})
	}
}
