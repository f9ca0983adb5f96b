package hostfs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestGlobDoesNotListAFolderForANameWithoutStars(t *testing.T) {
	dir := t.TempDir()
	for i := range 5000 { // more than are listed
		if err := os.MkdirAll(filepath.Join(dir, "many", fmt.Sprint(i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"many/x.toml", "few/x.toml", "few/y.toml"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("gone", filepath.Join(dir, "x.toml")); err != nil {
		t.Fatal(err)
	}
	h, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for pattern, want := range map[string][]string{
		"/*/x.toml":    {"/few/x.toml", "/many/x.toml"},
		"/few/*.toml":  {"/few/x.toml", "/few/y.toml"},
		"/x.toml":      {"/x.toml"}, // a link that leads nowhere is there, as for filepath.Glob
		"/gone/x.toml": nil,
		"/*/gone":      nil,
	} {
		got, err := h.Glob(pattern)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", pattern, got, err, want)
		}
		if pattern == "/*/gone" && !slices.Contains(h.Seen(), "/few/gone") {
			t.Errorf("a file that could come is not watched: %q", h.Seen())
		}
	}
	if _, err := h.Glob("/many/*.toml"); err == nil {
		t.Error("a folder of too many was listed")
	}
}
