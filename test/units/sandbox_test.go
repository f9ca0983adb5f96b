package units

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// The trials themselves need a booted system, and are made in package boot. Here is
// that a verdict is not given lightly.
func TestTheSandboxIsJudgedByEveryTrial(t *testing.T) {
	inside, outside := names("inside", "can", "cannot"), names("outside", "cannot")
	if len(inside) < 15 || len(outside) < 8 || !slices.Contains(inside, "a script is a helper") || slices.Contains(outside, "a script is a helper") {
		t.Fatalf("inside %q\noutside %q", inside, outside)
	}
	var lines []string
	for _, name := range inside {
		lines = append(lines, "sandbox: passed inside: "+name)
	}
	for _, name := range outside {
		lines = append(lines, "sandbox: passed outside: "+name)
	}
	if err := Judge(strings.Join(lines, "\n")); err != nil {
		t.Errorf("all has passed: %v", err)
	}
	for i, line := range lines {
		if err := Judge(strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "\n")); err == nil {
			t.Errorf("without %q all is well", line)
		}
	}
	if err := Judge(strings.Join(lines, "\n") + "\nsandbox: FAILED inside: something: it can: yes\n"); err == nil || !strings.Contains(err.Error(), "something") {
		t.Errorf("one that failed: %v", err)
	}
}

func TestTheSandboxsFiles(t *testing.T) {
	files := Sandbox(t)
	if len(files) != 4 {
		t.Fatalf("%d files", len(files))
	}
	for _, f := range files {
		program := strings.HasPrefix(f.Path, "/usr/local/bin/")
		if len(f.Data) == 0 || program != (f.Mode == os.FileMode(0o755)) {
			t.Errorf("%s: mode %v, %d bytes", f.Path, f.Mode, len(f.Data))
		}
		if program && !strings.HasPrefix(string(f.Data), "#!/bin/sh\n") && !strings.HasPrefix(string(f.Data), "\x7fELF") {
			t.Errorf("%s is no program", f.Path)
		}
	}
}
