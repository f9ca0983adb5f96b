package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// run has the real go test -json test a package made of source, and reports it.
func run(t *testing.T, noSkip bool, source string) (string, bool) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.test/p\n\ngo 1.26\n", "p_test.go": source} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-json", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	events, _ := cmd.Output() // it exits with 1 where the package under test is meant to fail
	var out bytes.Buffer
	r := newReport(&out)
	if err := r.read(bytes.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	ok := r.summary(noSkip)
	return out.String(), ok
}

func TestReport(t *testing.T) {
	const head = "package p\n\nimport \"testing\"\n\n"
	for _, c := range []struct {
		name, source string
		noSkip, ok   bool
		says         []string
		closing      string
	}{
		{
			name:   "subtests count, and a test that prints a verdict does not",
			source: head + "func TestA(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Log(\"--- FAIL: TestZ\") }) }\n",
			ok:     true, says: []string{"ok\texample.test/p"}, closing: "2 passed, 0 failed, 0 skipped",
		},
		{
			name:   "a failure is printed in full",
			source: head + "func TestA(t *testing.T) {}\nfunc TestB(t *testing.T) { t.Fatal(\"the cause\") }\n",
			says:   []string{"the cause", "FAIL\texample.test/p"}, closing: "1 passed, 1 failed, 0 skipped",
		},
		{
			name:   "a skip is printed and allowed",
			source: head + "func TestA(t *testing.T) { t.Skip(\"the reason\") }\n",
			ok:     true, says: []string{"the reason"}, closing: "0 passed, 0 failed, 1 skipped",
		},
		{
			name:   "a skip fails where none is allowed",
			source: head + "func TestA(t *testing.T) { t.Skip(\"the reason\") }\n",
			noSkip: true, says: []string{"not allowed"}, closing: "0 passed, 0 failed, 1 skipped",
		},
		{
			name:   "a package that does not build fails, with the compiler's words",
			source: head + "func TestA(t *testing.T) { missing() }\n",
			says:   []string{"undefined: missing", "build failed"}, closing: "0 passed, 0 failed, 0 skipped",
		},
		{
			name:   "a process that dies outside of any test fails",
			source: "package p\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestA(t *testing.T) {}\nfunc TestMain(m *testing.M) { m.Run(); println(\"last words\"); os.Exit(3) }\n",
			says:   []string{"last words", "FAIL\texample.test/p"}, closing: "1 passed, 0 failed, 0 skipped",
		},
		{
			name:   "a panic is printed with the test that it ended",
			source: head + "func TestA(t *testing.T) { panic(\"the cause\") }\n",
			says:   []string{"the cause", "FAIL\texample.test/p"}, closing: "0 passed, 1 failed, 0 skipped",
		},
		{
			name: "no test at all is no success", source: "package p\n",
			says: []string{"no test ran"}, closing: "0 passed, 0 failed, 0 skipped",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, ok := run(t, c.noSkip, c.source)
			if ok != c.ok {
				t.Errorf("all is well: %v, want %v", ok, c.ok)
			}
			for _, want := range c.says {
				if !strings.Contains(out, want) {
					t.Errorf("report lacks %q", want)
				}
			}
			if !strings.HasSuffix(out, "\n"+c.closing+"\n") {
				t.Errorf("report does not close with %q", c.closing)
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

func TestCutOffRunIsNoSuccess(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out)
	events := `{"Action":"start","Package":"p"}
{"Action":"pass","Package":"p","Test":"TestA"}
`
	if err := r.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if r.summary(false) || !strings.Contains(out.String(), "cut off") {
		t.Errorf("a run that was killed passes:\n%s", out.String())
	}
}
