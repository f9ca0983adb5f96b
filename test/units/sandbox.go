// Package units checks the systemd units with systemd's own tools, as far as that
// goes without booting, and has what package boot needs to check the rest: credential
// helpers, and trials of what the sandbox forbids, that run within it.
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

// File is one to be put into a system under test, root's.
type File struct {
	Path string
	Mode fs.FileMode
	Data []byte
}

// DropIn makes sidemirror.service run the trials before it starts. The caller removes it
// afterwards.
const DropIn = "/etc/systemd/system/sidemirror.service.d/sandbox.conf"

// Sandbox are the files that make a booted system, with iproute2 and util-linux, run
// credential helpers, and trials of what is forbidden, in the sandbox of
// sidemirror.service whenever that is started: after a daemon-reload it starts only if
// all goes as it should. [Judge] says more, of what the journal has of the unit.
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

// Judge reports which trial went wrong, or was not made, by what the unit's journal
// has since it was started with what [Sandbox] gives.
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

// names are those of the trials that are made there. Those of a function are
// indented, and for inside alone.
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
