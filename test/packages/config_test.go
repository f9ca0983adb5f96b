package packages

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
)

// show is "config show" of a file, without where each value comes from.
func show(t *testing.T, file string) string {
	t.Helper()
	out := run(t, ".", nil, harness.Binary(t), "config", "show", "--config", file)
	return regexp.MustCompile(`(?m) +# (default|/.*)$`).ReplaceAllString(out, "")
}

func TestInstalledConfigurationChangesNothing(t *testing.T) {
	shipped, empty := filepath.Join(root, "packaging/config.toml"), filepath.Join(t.TempDir(), "empty.toml")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	shipped, err := filepath.Abs(shipped)
	if err != nil {
		t.Fatal(err)
	}
	run(t, ".", nil, harness.Binary(t), "config", "check", "--config", shipped)
	if with, without := show(t, shipped), show(t, empty); with != without {
		t.Errorf("with the file:\n%s\nwithout:\n%s", with, without)
	}
}

var (
	commented = regexp.MustCompile(`(?m)^#([a-z_]+ = |\[)`)
	keyShown  = regexp.MustCompile(`(?m)^([a-z_]+) = .*$`)
	tableLine = regexp.MustCompile(`(?m)^\[(.*)\]$`)
)

// Everything that the file says can be said is taken, and what it gives as the
// default is the default.
func TestInstalledConfigurationUncommented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "packaging/config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	all, empty := filepath.Join(dir, "all.toml"), filepath.Join(dir, "empty.toml")
	if err := os.WriteFile(all, commented.ReplaceAll(text, []byte("$1")), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, ".", nil, harness.Binary(t), "config", "show", "--config", all)
	with, without := show(t, all), show(t, empty)
	// What is there without the file is there with it, in the same words; the file's
	// own registry comes besides.
	head, example, ok := strings.Cut(with, "\n[registry.\"registry.corp.example:5000\"]\n")
	if !ok {
		t.Fatalf("the example is not in:\n%s", with)
	}
	_, rest, _ := strings.Cut(example, "\n[")
	if rest != "" {
		head += "\n[" + rest
	}
	if strings.TrimSpace(head) != strings.TrimSpace(without) {
		t.Errorf("what it gives as default is not:\n%s\nbut:\n%s", head, without)
	}
}

func TestInstalledConfigurationKnowsEveryKey(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "packaging/config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	any := filepath.Join(dir, "any.toml")
	// A registry of which every key is set, so that "config show" shows every key.
	if err := os.WriteFile(any, commented.ReplaceAll(text, []byte("$1")), 0o644); err != nil {
		t.Fatal(err)
	}
	keys, n := byTable(show(t, any)), 0
	written := byTable(commented.ReplaceAllString(string(text), "$1"))
	for table, names := range keys {
		for name := range names {
			n++
			explained := written[table][name]
			if strings.HasPrefix(table, "registry.") {
				explained = explained || written[`registry."registry.corp.example:5000"`][name]
			}
			if !explained {
				t.Errorf("packaging/config.toml does not say what [%s] %s is", table, name)
			}
		}
	}
	if n < 25 {
		t.Errorf("only %d keys are shown", n)
	}
}

// byTable are the keys of a file by their table.
func byTable(text string) map[string]map[string]bool {
	all, now := map[string]map[string]bool{"": {}}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if m := tableLine.FindStringSubmatch(line); m != nil {
			now = m[1]
			all[now] = map[string]bool{}
		} else if m := keyShown.FindStringSubmatch(line); m != nil {
			all[now][m[1]] = true
		}
	}
	return all
}

var example = regexp.MustCompile("(?s)```toml\n(.*?)```")

// What the documentation shows can be pasted at the end of the installed file as it is: no table is
// there twice.
func TestDocumentedExamplesCanBeAppendedToTheInstalledConfiguration(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "packaging/config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	documents, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, document := range append(documents, filepath.Join(root, "README.md")) {
		page, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range example.FindAllSubmatch(page, -1) {
			file := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(file, slices.Concat(text, []byte("\n"), block[1]), 0o644); err != nil {
				t.Fatal(err)
			}
			run(t, ".", nil, harness.Binary(t), "config", "show", "--config", file)
			examples++
		}
	}
	if examples < 2 {
		t.Errorf("only %d examples in %d documents", examples, len(documents)+1)
	}
}
