// Package scripts_test runs the command line as a person types it: each *.txtar file of this folder
// is a session with the real binary, in testscript's language
// (https://pkg.go.dev/github.com/rogpeppe/go-internal/testscript), with the commands below.
package scripts_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/registry"
)

func TestMain(m *testing.M) { harness.Main(m) }

func TestCommandLine(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	if err := os.Symlink(harness.Binary(t), filepath.Join(bin, "sidemirror")); err != nil {
		t.Fatal(err)
	}
	documented := documentedKeys(t)
	// A registry with one image, and a daemon that mirrors it.
	upstream := registry.Start(t, registry.Options{})
	image := upstream.Push(t, "alice/app", "v1", registry.Shape{Size: 1 << 12})
	daemon := harness.Start(t, harness.Options{Registries: []harness.Registry{{Name: "r.test", Upstreams: []string{upstream.URL.String()}}}})
	testscript.Run(t, testscript.Params{
		Dir: ".",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			// A configuration of the machine must not count.
			e.Setenv("SIDEMIRROR_CONFIG", filepath.Join(e.WorkDir, "config.toml"))
			e.Setenv("DAEMON", filepath.Join(daemon.Dir(), "config.toml"))
			e.Setenv("IMAGE", "r.test/alice/app:v1")
			e.Setenv("DIGEST", image.Digest)
			e.Setenv("UPSTREAM", upstream.URL.Host)
			e.Setenv("PORT", strconv.Itoa(process.FreePort(t)))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "fits": fits, "awaits": awaits, "answers": answers,
			"keys": func(ts *testscript.TestScript, not bool, args []string) { keys(ts, not, args, documented) },
		},
	})
}

// exits runs a command and wants its exit code:
//
//	exits 2 sidemirror plan
func exits(ts *testscript.TestScript, not bool, args []string) {
	if not || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var ended *exec.ExitError
		if !errors.As(err, &ended) {
			ts.Fatalf("%v", err)
		}
		got = ended.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// patience is for what a program does in the background. A test that passes never waits for so long.
const patience = time.Minute

// awaits wants a file to contain a text soon:
//
//	awaits FILE TEXT
func awaits(ts *testscript.TestScript, not bool, args []string) {
	if not || len(args) != 2 {
		ts.Fatalf("usage: awaits FILE TEXT")
	}
	eventually(ts, func() error {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && !strings.Contains(string(data), args[1]) {
			err = fmt.Errorf("%s has no %q: %s", args[0], args[1], data)
		}
		return err
	})
}

// answers wants a server to answer soon with status 200:
//
//	answers URL
func answers(ts *testscript.TestScript, not bool, args []string) {
	if not || len(args) != 1 {
		ts.Fatalf("usage: answers URL")
	}
	transport := &http.Transport{DisableKeepAlives: true} // no proxy of the environment
	eventually(ts, func() error {
		resp, err := (&http.Client{Transport: transport}).Get(args[0])
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", args[0], resp.Status)
		}
		return nil
	})
}

func eventually(ts *testscript.TestScript, try func() error) {
	err := try()
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); err = try() {
		time.Sleep(20 * time.Millisecond)
	}
	ts.Check(err)
}

// reports begins a line that a terminal may wrap.
var reports = regexp.MustCompile(`^(sidemirror|problem|hint|note|warning): `)

// fits wants lines that fit a screen, unless they report something. tools/prose checks the words.
//
//	fits stdout
func fits(ts *testscript.TestScript, not bool, args []string) {
	if not || len(args) != 1 {
		ts.Fatalf("usage: fits stdout|stderr|FILE")
	}
	for i, line := range strings.Split(ts.ReadFile(args[0]), "\n") {
		if n := utf8.RuneCountInString(line); n > 120 && !reports.MatchString(line) {
			ts.Fatalf("line %d has %d characters: %s", i+1, n, line)
		}
	}
}

// keys wants JSON whose keys are snake_case and documented in docs/json.md:
//
//	keys stdout
func keys(ts *testscript.TestScript, not bool, args []string, documented map[string]bool) {
	if not || len(args) != 1 {
		ts.Fatalf("usage: keys stdout|FILE")
	}
	var value any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &value); err != nil {
		ts.Fatalf("not JSON: %v", err)
	}
	for _, key := range keysIn(value) {
		if !snakeCase.MatchString(key) {
			ts.Fatalf("the key %q is not in snake_case", key)
		}
		if !documented[key] {
			ts.Fatalf("the key %q is not in docs/json.md", key)
		}
	}
}

var snakeCase = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

func keysIn(value any) (keys []string) {
	switch v := value.(type) {
	case map[string]any:
		for key, child := range v {
			keys = append(keys, key)
			keys = append(keys, keysIn(child)...)
		}
	case []any:
		for _, child := range v {
			keys = append(keys, keysIn(child)...)
		}
	}
	return keys
}

// documentedKeys returns the keys that the tables of docs/json.md describe. A row's first cell is a
// path such as `engines[].files[].path`.
func documentedKeys(t *testing.T) map[string]bool {
	t.Helper()
	data, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9_.\\[\\]]+)`").FindAllStringSubmatch(string(data), -1) {
		for _, key := range strings.FieldsFunc(row[1], func(r rune) bool { return strings.ContainsRune(".[]", r) }) {
			found[key] = true
		}
	}
	if len(found) == 0 {
		t.Fatal(fmt.Errorf("docs/json.md describes no key"))
	}
	return found
}
