package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSetupForGuestsSaysWhatIsMissing(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte("[guests]\nnetworks = ['br-none']\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		line []string
		text string
		code int
	}{
		{[]string{"setup-buildx", "--bridge", "br-none"}, "there is no bridge br-none with an address on this host", exitFailed},
		{[]string{"setup-guest", "dind", "--bridge", "br-none"}, "name another one with --bridge", exitFailed},
		{[]string{"setup-guest", "vagrant"}, "setup-guest takes dind, buildx, kind, minikube, gitlab-runner or lima, not \"vagrant\"", exitUsage},
		{[]string{"setup-guest", "dind", "--write", "--bridge", "br-none"}, "there is nothing to write", exitUsage},
		{[]string{"setup-buildx", "x"}, "takes no argument", exitUsage},
	} {
		var out, problems strings.Builder
		code := run(t.Context(), append(tt.line, "--config", file), strings.NewReader(""), &out, &problems)
		if code != tt.code || !strings.Contains(problems.String(), tt.text) {
			t.Errorf("%q: exit code %d\n%s", tt.line, code, problems.String())
		}
	}
	var out, problems strings.Builder
	if code := run(t.Context(), []string{"setup-buildx", "--undo", "--config", file}, strings.NewReader(""), &out, &problems); code != 0 || !strings.Contains(out.String(), "has no entry of sidemirror") {
		t.Errorf("undo without a file: %d\n%s%s", code, out.String(), problems.String())
	}
}
