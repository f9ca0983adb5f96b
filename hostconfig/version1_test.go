package hostconfig

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/journal"
)

// The trees are of sidemirror 130effd, the last to write journals of version 1: before and after its
// apply. In "farm" two registries' folders are links to one, which it recorded twice.
func TestWhatVersion1OfTheJournalRecordedIsReverted(t *testing.T) {
	for name, mtimes := range map[string]map[string]string{
		"plain": {
			dockerJSON:       "2026-11-25T18:40:01.691113296Z",
			containerdConfig: "2026-11-25T18:40:01.691113296Z",
		},
		"farm": {"/etc/containerd/certs.d/common/hosts.toml": "2026-11-25T18:40:12.166778394Z"},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("the files that were recorded are root's")
			}
			data := "journal/testdata/version1/" + name
			before, h := &Host{Root: filepath.Join(memory(t), "before")}, host(t, nil)
			h.Root = filepath.Join(h.Root, "after")
			h.Versions = nil
			if err := os.CopyFS(before.Root, os.DirFS(data+"/before")); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(h.Root, os.DirFS(data+"/after")); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(h.path(journal.Folder), 0o700); err != nil {
				t.Fatal(err)
			}
			h.revert(t)
			sameTree(t, timeless(before.snapshot(t)), timeless(h.snapshot(t)))
			for file, want := range mtimes {
				info, err := os.Stat(h.path(file))
				if err != nil || info.ModTime().UTC().Format(time.RFC3339Nano) != want {
					t.Errorf("%s: %v, %v", file, info.ModTime().UTC(), err)
				}
			}
		})
	}
}

// The recorded trees have to hold what the test is about.
func TestTheRecordedTreesHoldSidemirrorsEntries(t *testing.T) {
	found := 0
	err := fs.WalkDir(os.DirFS("journal/testdata/version1"), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.Contains(name, "/after/etc/") {
			return err
		}
		text, err := os.ReadFile("journal/testdata/version1/" + name)
		if strings.Contains(string(text), ourURL) {
			found++
		}
		return err
	})
	if err != nil || found != 13 {
		t.Errorf("%d files with sidemirror's entry, %v", found, err)
	}
}
