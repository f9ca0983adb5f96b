package engine

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/process"
)

// Generation is a containerd and a dockerd of one age.
type Generation string

// The generations, oldest first. Debian's are what its suites have today; Built is
// the newest of both, built from their modules.
const (
	Bookworm Generation = "bookworm" // containerd 1.6, Docker 20.10
	Trixie   Generation = "trixie"   // containerd 1.7, Docker 26
	Sid      Generation = "sid"      // containerd 2.1, Docker 28
	Built    Generation = "built"    // containerd 2.4, Docker 29

	// TrixieTools is no generation of daemons: it is trixie's podman 5, buildah and skopeo. Those of
	// bookworm are this machine's.
	TrixieTools Generation = "trixie-tools"

	// BuildKit is buildkitd and buildctl, built from their module.
	BuildKit Generation = "buildkit"

	// Nerdctl is nerdctl, built from its module, with this machine's containerd.
	Nerdctl Generation = "nerdctl"
)

// Generations are those to test against: the oldest and the newest, or all of them
// where $ENGINES is "all", as make test-engines has it.
func Generations() []Generation {
	if os.Getenv("ENGINES") == "all" {
		return []Generation{Bookworm, Trixie, Sid, Built}
	}
	return []Generation{Bookworm, Built}
}

//go:embed get.sh
var script string

// getLimit is how long getting a generation may take: building the newest from
// nothing needs three minutes on two idle cores.
const getLimit = 15 * time.Minute

var got struct {
	sync.Mutex
	folders map[Generation]string
}

// Get returns the folder of a generation's engines, with usr and etc as they are
// installed. It installs or builds them first if they are missing.
func (g Generation) Get(t testing.TB) string {
	t.Helper()
	folder, versions, err := g.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if versions != "" {
		t.Logf("%s: %s", g, versions)
	}
	return folder
}

// GetAll gets all of [Generations] and the others, for tests that cannot reach the internet later.
func GetAll() error {
	for _, g := range append(Generations(), TrixieTools, BuildKit, Nerdctl) {
		if _, _, err := g.get(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// get returns the folder, and the versions the first time.
func (g Generation) get(ctx context.Context) (folder, versions string, err error) {
	got.Lock()
	defer got.Unlock()
	if folder := got.folders[g]; folder != "" {
		return folder, "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, getLimit)
	defer cancel()
	var env []string
	for _, line := range os.Environ() {
		// The proxies and Go's own settings, which downloads need.
		if !strings.HasPrefix(line, "PATH=") && !strings.HasPrefix(line, "HOME=") {
			env = append(env, line)
		}
	}
	out, err := process.Run(ctx, env, "sh", "-c", script, "get.sh", string(g))
	if err != nil {
		return "", "", fmt.Errorf("getting the engines of %s: %w", g, err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	folder = lines[len(lines)-1]
	if !filepath.IsAbs(folder) {
		return "", "", fmt.Errorf("getting the engines of %s: get.sh printed %q", g, out)
	}
	if got.folders == nil {
		got.folders = make(map[Generation]string)
	}
	got.folders[g] = folder
	return folder, strings.Join(lines[:len(lines)-1], ", "), nil
}
