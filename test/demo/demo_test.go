package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// What a newcomer sees first must not rot, and is readable where it is kept in a
// file, without a terminal's codes.
func TestTheDemoEndsWellAndIsPlainInAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "transcript")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	code := play(t.Context(), newPaint(out), story)
	transcript, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 {
		t.Errorf("the demo ends with %d:\n%s", code, transcript)
	}
	for _, line := range []string{
		"sidemirror → token server", "→ fetch it from the blob store",
		"✓ names, modes and bytes of the whole tree are as before",
	} {
		if !strings.Contains(string(transcript), line) {
			t.Errorf("the transcript has no %q:\n%s", line, transcript)
		}
	}
	if strings.Contains(string(transcript), "\x1b") {
		t.Error("a file is given a terminal's colours")
	}
}

// A chroot to build in may have no /proc, and no systemd. The first time, a person sees
// on the terminal how far the build is.
func TestMakeDemoWorksInAChrootAndShowsHowFarItBuilds(t *testing.T) {
	checkout := t.TempDir()
	unshare := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		unshare = append(unshare, "--map-root-user")
	}
	// script gives it a terminal, and needs the /dev/pts of this host.
	const inside = `git ls-files -z --cached --others --exclude-standard | xargs -0 sh -c 'for f; do [ ! -e "$f" ] || cp --parents --no-dereference "$f" "$0"; done' "$1"
git -C "$1" init --quiet
mount -t tmpfs none /proc
exec env --unset=GOROOT script --quiet --return --command "make -C '$1' demo VERSION=0.0.1" /dev/null`
	cmd := exec.CommandContext(t.Context(), unshare[0], append(unshare[1:], "sh", "-eu", "-c", inside, "sh", checkout)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "TERM=xterm", "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"building sidemirror: ", "building the demonstration: ", " packages of at most ", "containerd and Docker need /proc", "as before",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not print %q:\n%s", want, out)
		}
	}
}

// A check that does not hold must end the demo with an error, or it shows nothing.
func TestTheDemoFailsWhereACheckDoes(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "transcript"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for name, story := range map[string]func(*scene){
		"check": func(s *scene) { s.check(false, "one is two") },
		"fatal": func(s *scene) { s.Fatal("no registry") },
	} {
		t.Run(name, func(t *testing.T) {
			cleaned := false
			code := play(t.Context(), newPaint(out), func(s *scene) {
				s.Cleanup(func() { cleaned = true })
				story(s)
			})
			if code != 1 || !cleaned {
				t.Errorf("ends with %d, cleaned up: %v; want 1 and true", code, cleaned)
			}
		})
	}
}
