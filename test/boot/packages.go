package boot

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

// The versions that are built: one to install and one to upgrade to.
const oldVersion, newVersion = "0.1.0", "0.1.1~boot1"

// packages are the paths of what was built from this checkout. In a machine each
// is in /srv under its own name, once carried there.
type packages struct {
	deb, newDeb string
	rpm, newRPM string
}

// build is what this test process builds, once.
var build struct {
	once sync.Once
	dir  string
	made bool
	err  error
}

// built returns the packages, in both versions: those in $SIDEMIRROR_TEST_PACKAGES,
// or, where that is not set, what the first who asks builds.
func built(t testing.TB) packages {
	t.Helper()
	build.once.Do(func() {
		if build.dir = os.Getenv("SIDEMIRROR_TEST_PACKAGES"); build.dir != "" {
			return
		}
		build.made = true
		began := time.Now()
		if build.dir, build.err = os.MkdirTemp("", "sidemirror-packages-"); build.err != nil {
			return
		}
		for _, version := range []string{oldVersion, newVersion} {
			if build.err == nil {
				build.err = makePackages(version)
			}
		}
		t.Logf("the packages were built in %.0f s", time.Since(began).Seconds())
	})
	if build.err != nil {
		t.Fatalf("building the packages: %v", build.err)
	}
	rpmArch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	deb := func(version string) string {
		return filepath.Join(build.dir, fmt.Sprintf("sidemirror_%s_%s.deb", version, runtime.GOARCH))
	}
	rpm := func(version string) string {
		return filepath.Join(build.dir, fmt.Sprintf("sidemirror-%s-1.%s.rpm", version, rpmArch))
	}
	return packages{deb: deb(oldVersion), newDeb: deb(newVersion), rpm: rpm(oldVersion), newRPM: rpm(newVersion)}
}

func makePackages(version string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	// go test runs in the package's folder.
	cmd := exec.CommandContext(ctx, "../../packaging/build.sh", build.dir)
	cmd.Env = append(os.Environ(), "VERSION="+version, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// inside is where a carried file is in the machine.
func inside(file string) string { return "/srv/" + filepath.Base(file) }
