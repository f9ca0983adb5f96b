package packages

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each commit's version is higher than that of the commit before it, for dpkg and for rpm, with and
// without a tag: no upgrade looks like a downgrade.
func TestVersionsSortAsTheyCome(t *testing.T) {
	repo := t.TempDir()
	if err := os.Mkdir(filepath.Join(repo, "packaging"), 0o755); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(root, "packaging/version.sh"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(repo, "packaging/version.sh"), script, 0o755); err != nil {
		t.Fatal(err)
	}
	const none = "GIT_CONFIG_GLOBAL=/dev/null"
	who := []string{none, "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@a.test", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@a.test"}
	git := func(at string, args ...string) {
		t.Helper()
		run(t, repo, append([]string{"GIT_AUTHOR_DATE=" + at, "GIT_COMMITTER_DATE=" + at}, who...), "git", args...)
	}
	now := func() string {
		t.Helper()
		return strings.TrimSpace(run(t, repo, []string{none, "SOURCE_DATE_EPOCH="}, "packaging/version.sh"))
	}
	edit := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(repo, "CHANGELOG.md"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	edit("## [Unreleased]\n\n## [0.3.0] - 2026-01-01\n")
	last := "0"
	check := func(form string) {
		t.Helper()
		got := now()
		if !regexp.MustCompile("^" + form + "$").MatchString(got) {
			t.Errorf("version %s, want one as %s", got, form)
		}
		run(t, ".", nil, "dpkg", "--compare-versions", last, "lt", got)
		if by := run(t, ".", nil, "rpm", "--eval", `%{lua: print(rpm.vercmp("`+last+`", "`+got+`"))}`); strings.TrimSpace(by) != "-1" {
			t.Errorf("rpm: %s before %s: %s", last, got, by)
		}
		last = got
	}
	if got := now(); got != "0.3.0+local" {
		t.Errorf("without git: %s", got)
	}
	git("", "init", "-q")
	git("", "add", ".")
	git("2026-01-01T00:00:01+02:00", "commit", "-qm", "1")
	check(`0\.1\.0~git20251231220001\.[0-9a-f]{7}`)
	git("2026-01-01T10:00:00Z", "commit", "--allow-empty", "-qm", "2")
	check(`0\.1\.0~git20260101100000\.[0-9a-f]{7}`)
	edit("changed")
	check(`0\.1\.0~git20260101100000\.[0-9a-f]{7}\.dirty`)
	git("2026-01-02T00:00:00Z", "commit", "-qam", "3")
	git("2026-01-02T00:00:00Z", "tag", "v0.1.0-rc1")
	check(`0\.1\.0~rc1`)
	git("2026-01-03T00:00:00Z", "commit", "--allow-empty", "-qm", "4")
	check(`0\.1\.0~rc1\+git20260103000000\.[0-9a-f]{7}`)
	git("2026-01-03T00:00:00Z", "tag", "v0.1.0")
	check(`0\.1\.0`)
	edit("again")
	check(`0\.1\.0\+dirty`)
	git("2026-01-04T00:00:00Z", "commit", "-qam", "5")
	check(`0\.1\.0\+git20260104000000\.[0-9a-f]{7}`)
	git("2026-01-04T00:00:00Z", "tag", "v0.2.0")
	check(`0\.2\.0`)
}
