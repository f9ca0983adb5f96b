// Package units checks the systemd units with systemd's own tools, as far as possible without a
// boot. It also has what package boot needs for the rest: credential helpers, and trials inside the
// sandbox of what it forbids.
package units

import (
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var (
	//go:embed testdata/sandbox.sh
	trials []byte
	//go:embed testdata/sandbox.conf
	dropIn []byte
	//go:embed testdata/docker-credential-script
	script []byte
)

// File is a file to install in a system under test. It belongs to root.
type File struct {
	Path string
	Mode fs.FileMode
	Data []byte
}

// DropIn makes sidemirror.service run the trials before it starts. The caller removes it
// afterwards.
const DropIn = "/etc/systemd/system/sidemirror.service.d/sandbox.conf"

// Sandbox returns files for a booted system that has iproute2 and util-linux. With them each start
// of sidemirror.service runs credential helpers and trials in its sandbox. After a daemon-reload it
// starts only if they all give the expected result. [Judge] reads details from the unit's journal.
func Sandbox(tb testing.TB) []File {
	tb.Helper()
	helper := filepath.Join(tb.TempDir(), "helper")
	build := exec.Command("go", "build", "-o", helper, "github.com/sidemirror/sidemirror/test/units/docker-credential-sandboxed")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("go build of the credential helper: %v\n%s", err, out)
	}
	static, err := os.ReadFile(helper)
	if err != nil {
		tb.Fatal(err)
	}
	return []File{
		{"/usr/local/bin/docker-credential-sandboxed", 0o755, static},
		{"/usr/local/bin/docker-credential-script", 0o755, script},
		{"/usr/local/bin/sidemirror-sandbox", 0o755, trials},
		{DropIn, 0o644, dropIn},
	}
}

// Judge returns an error that names the trials that failed or were not made, according to the
// unit's journal since it was started with the files of [Sandbox].
func Judge(journal string) error {
	var wrong []string
	for line := range strings.Lines(journal) {
		if _, said, found := strings.Cut(line, "sandbox: FAILED "); found {
			wrong = append(wrong, strings.TrimSpace(said))
		}
	}
	for _, name := range names("inside", "can", "cannot") {
		if !strings.Contains(journal, "sandbox: passed inside: "+name) {
			wrong = append(wrong, "not seen to pass inside: "+name)
		}
	}
	for _, name := range names("outside", "cannot") {
		if !strings.Contains(journal, "sandbox: passed outside: "+name) {
			wrong = append(wrong, "not seen to be possible outside: "+name)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("the sandbox of sidemirror.service:\n%s", strings.Join(wrong, "\n"))
	}
	return nil
}

// names returns the names of the trials that are made there. Those in a function are indented, and
// are made only inside.
func names(where string, words ...string) []string {
	var list []string
	for line := range strings.Lines(string(trials)) {
		bare := strings.TrimLeft(line, "\t")
		if where == "outside" && bare != line {
			continue
		}
		for _, word := range words {
			if rest, found := strings.CutPrefix(bare, word+` "`); found && !strings.HasPrefix(rest, "$") {
				name, _, _ := strings.Cut(rest, `"`)
				list = append(list, name)
			}
		}
	}
	return list
}
