package hosts_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/test/engine"
)

// dockerdVersions are the versions of dockerd in the generations.
var dockerdVersions = map[engine.Generation]splice.Version{
	engine.Bookworm: {Major: 20, Minor: 10}, engine.Trixie: {Major: 26, Minor: 1},
	engine.Sid: {Major: 28, Minor: 5}, engine.Built: {Major: 29, Minor: 7},
}

// daemonForm is a form of daemon.json.
type daemonForm struct {
	text     string
	versions []string // of dockerd that accept it, as recorded
}

// daemonForms returns the forms that the unit tests of hostconfig/splice read too, and two that are
// nested deeply.
func daemonForms(t *testing.T) []daemonForm {
	t.Helper()
	data, err := os.ReadFile("../../hostconfig/splice/testdata/daemon_forms.txt")
	if err != nil {
		t.Fatal(err)
	}
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	forms := []daemonForm{
		{`{"a": ` + deep(10001) + `}`, nil},
		{`{"unknown": {"debug": ` + deep(9000) + `}}`, []string{"20.10", "26.1", "28.5", "29.7"}},
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		versions, quoted, _ := strings.Cut(strings.TrimSpace(line), ` "`)
		text, err := strconv.Unquote(`"` + quoted)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		forms = append(forms, daemonForm{text, strings.Fields(versions)})
	}
	return forms
}

// What dockerd of a version starts with, sidemirror edits, and dockerd starts with the result; what
// that dockerd refuses, sidemirror refuses.
func TestDaemonJSONIsReadAsDockerdReadsIt(t *testing.T) {
	engine.NeedRoot(t)
	for _, g := range engine.Generations() {
		t.Run(string(g), func(t *testing.T) {
			t.Parallel()
			dockerd, version := filepath.Join(g.Get(t), "usr/sbin/dockerd"), dockerdVersions[g]
			for _, form := range daemonForms(t) {
				says, accepted := dockerdAccepts(t, dockerd, version, form.text)
				name := form.text[:min(len(form.text), 100)]
				if recorded := slices.Contains(form.versions, fmt.Sprintf("%d.%d", version.Major, version.Minor)); recorded != accepted {
					t.Errorf("%q: dockerd says %q, other than recorded in daemon_forms.txt", name, says)
				}
				file, err := splice.ReadDaemon("daemon.json", []byte(form.text), version)
				if (err == nil) != accepted {
					t.Errorf("%q: dockerd says %q, sidemirror %v", name, says, err)
				}
				if err != nil {
					continue
				}
				edited, err := file.AddMirror("http://127.0.0.1:305")
				if err != nil {
					t.Errorf("%q: %v", name, err)
				} else if says, accepted := dockerdAccepts(t, dockerd, version, string(edited)); !accepted {
					t.Errorf("%q became %q, of which dockerd says %q", name, edited, says)
				}
			}
		})
	}
}

// dockerdAccepts reports whether dockerd gets past reading a daemon.json. Before 23 it has no
// --validate: it is started for real, with folders that it cannot make, so that it ends right after.
func dockerdAccepts(t *testing.T, dockerd string, v splice.Version, form string) (says string, ok bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(file, []byte(form), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--config-file", file, "--validate"}
	if v.Major < 23 {
		args = []string{"--config-file", file, "--data-root", "/dev/null/root", "--exec-root", "/dev/null/exec", "--host", "unix:///dev/null/sock", "--pidfile", "/dev/null/pid"}
	}
	cmd := exec.CommandContext(t.Context(), dockerd, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	says = lines[len(lines)-1]
	switch {
	case v.Major >= 23 && err == nil && says == "configuration OK":
		return says, true
	case v.Major < 23 && strings.Contains(says, "/dev/null/"):
		return says, true
	case strings.Contains(says, "unable to configure the Docker daemon with file "), strings.Contains(says, "unable to parse logging level"):
		return says, false
	}
	t.Fatalf("%q: dockerd says what this test does not know: %s", form, out)
	return "", false
}
