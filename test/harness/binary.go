package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// built is the binary of this test process. The first caller builds it.
var built struct {
	once sync.Once
	path string
	dir  string
	err  error
}

// builtEnv names the folder that a process before this one built the binary in, which
// is removed after the tests.
const builtEnv = "SIDEMIRROR_TEST_BUILT"

// given is $SIDEMIRROR_BINARY, which is taken out of the environment: sidemirror, which many programs
// that a test starts run with this environment, does not know the variable.
var given = take("SIDEMIRROR_BINARY")

func take(name string) string {
	value := os.Getenv(name)
	if err := os.Unsetenv(name); err != nil {
		panic(err) // the name is one
	}
	return value
}

// Build builds the binary for the program that this process will execute in its place.
func Build() error {
	path, dir, err := build()
	if err != nil {
		return err
	}
	return errors.Join(os.Setenv("SIDEMIRROR_BINARY", path), os.Setenv(builtEnv, dir))
}

// Use makes path the binary under test. It must be called before the first call of [Binary].
func Use(path string) { given = path }

// Given reports whether the binary under test was not built by this process.
func Given() bool { return given != "" }

// Binary is the path of the sidemirror binary under test: $SIDEMIRROR_BINARY if
// set, else one built from this checkout, once a test process. Any user may
// execute it.
func Binary(tb testing.TB) string {
	tb.Helper()
	built.once.Do(func() { built.path, built.dir, built.err = build() })
	if built.err != nil {
		tb.Fatalf("build sidemirror: %v", built.err)
	}
	return built.path
}

// Main is a package's TestMain: it runs the tests, looks for goroutines that they
// left behind, and removes what Binary built.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		for _, dir := range []string{built.dir, os.Getenv(builtEnv)} {
			if err := os.RemoveAll(dir); dir != "" && err != nil {
				fmt.Fprintln(os.Stderr, "remove the built binary:", err)
			}
		}
		os.Exit(code)
	}))
}

func build() (path, dir string, err error) {
	if given != "" {
		return given, "", nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", "", err
	}
	if dir, err = os.MkdirTemp("", "sidemirror-binary-"); err != nil {
		return "", "", err
	}
	// MkdirTemp makes it 0700, and Options.UID must be able to execute what is in it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", dir, err
	}
	path = filepath.Join(dir, "sidemirror")
	// As packages are built, so that what they compile need not be compiled again.
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "./cmd/sidemirror")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", dir, fmt.Errorf("go build in %s: %w\n%s", root, err, out)
	}
	return path, dir, nil
}

// moduleRoot walks up from the working directory, which go test sets to the
// package's own, to the product's go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/sidemirror/sidemirror\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod of github.com/sidemirror/sidemirror above the working directory; set SIDEMIRROR_BINARY")
		}
		dir = parent
	}
}
