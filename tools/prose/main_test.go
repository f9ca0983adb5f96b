package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestProseIsFoundWhereAPersonReadsIt(t *testing.T) {
	long := strings.Repeat("wide ", 25)
	for _, c := range []struct{ name, text, want string }{
		{"a.md", "Is it stopped, the engine carries on.", `a.md:1: "Is it stopped,": begin a condition with "if"`},
		{"a.md", "Is it stopped, or does it run?", ""},
		{"a.md", "ok\n" + long, "a.md:2: 125 characters wide; wrap prose at 100"},
		{"a.md", "```\n" + long + "\n```", ""},
		{"a.md", "| " + long + " |", ""},
		{"a.go", "package a\n\n// f mends it.\nfunc f() {}\n", `a.go:3: "mends": write fix, hint`},
		{"a.go", "package a\n\nconst s = `one\nnobody asks`\n", `a.go:4: "nobody": write name the actor`},
		{"a.go", "package a\n\nconst amiss = `amiss`\n", ""}, // a key, not a sentence
		{"a.service", "# Starts by itself.\nExecStart=/bin/amiss\n", `a.service:1: "by itself"`},
		{"a.sh", "echo 'what is amiss'\n", `a.sh:1: "amiss"`},
		{"testdata/a.md", "what is amiss", ""},
		{"a.bin", "what is amiss", ""},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, c.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"init", "-q"}, {"add", "."}} {
			cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", args, err, out)
			}
		}
		findings, err := check(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case c.want == "" && len(findings) > 0:
			t.Errorf("%s with %q: found %v", c.name, c.text, findings)
		case c.want != "" && (len(findings) != 1 || !strings.HasPrefix(findings[0].String(), c.want)):
			t.Errorf("%s with %q: found %v, want %s", c.name, c.text, findings, c.want)
		}
	}
}
