package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// profiler is a file that is compiled into the program that is profiled, and into no other: it
// writes a profile of the processors' time from the start to SIGUSR1.
const profiler = `package main

import (
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
)

func init() {
	path := os.Getenv("` + profileVariable + `")
	f, err := os.Create(path + ".part")
	if err != nil || pprof.StartCPUProfile(f) != nil {
		return
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGUSR1)
	go func() {
		<-stop
		pprof.StopCPUProfile()
		f.Close()
		os.Rename(path+".part", path)
	}()
}
`

const profileVariable = "BENCH_PROFILE" // SIDEMIRROR_… would be a key of the configuration

// writeProfile serves what engines ask for most, and writes a profile of that to path, for the
// compiler (https://go.dev/doc/pgo): manifests by digest and by tag, and blobs that are stored and
// that are not.
func (b *bench) writeProfile(ctx context.Context, path string) error {
	binary, err := b.buildProfiled(ctx)
	if err != nil {
		return err
	}
	b.binary = binary
	made := filepath.Join(b.dir, "cpu.pprof")
	b.environment = []string{profileVariable + "=" + made}
	img := newImage("v1", 200, 4*mib)
	f, err := b.fleet(ctx, []*image{img}, sidemirror)
	if err != nil {
		return err
	}
	defer f.stop()
	s := f.servers[sidemirror]
	if err := b.serveForProfile(ctx, f, s, img); err != nil {
		return err
	}
	if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	for {
		data, err := os.ReadFile(made)
		if err == nil {
			return os.WriteFile(path, data, 0o644) //nolint:gosec // the compiler of any user reads it
		}
		if !os.IsNotExist(err) {
			return err
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func (b *bench) serveForProfile(ctx context.Context, f *fleet, s *server, img *image) error {
	if err := f.warm(ctx, "manifests", img.manifest); err != nil {
		return err
	}
	w, err := dial(ctx, s.address, 0)
	if err != nil {
		return err
	}
	defer w.close()
	for range 3 { // cold at first, and stored then
		for _, layer := range img.layers {
			if _, _, err := w.get(s.blob(layer), time.Now()); err != nil {
				return err
			}
		}
	}
	for _, load := range []struct {
		reference string
		lasting   time.Duration
	}{{img.manifest.digest, 15 * time.Second}, {img.tag, 5 * time.Second}} {
		if _, err := b.wrk(ctx, s, s.path("manifests", load.reference), 64, 2, load.lasting); err != nil {
			return err
		}
	}
	return nil
}

// buildProfiled builds sidemirror with the profiler, without an earlier profile.
func (b *bench) buildProfiled(ctx context.Context) (string, error) {
	source := filepath.Join(b.dir, "profiler.go")
	if err := os.WriteFile(source, []byte(profiler), 0o600); err != nil {
		return "", err
	}
	folder, err := filepath.Abs("../cmd/sidemirror")
	if err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(folder, "bench_profiler.go"): source}})
	if err != nil {
		return "", err
	}
	list := filepath.Join(b.dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", err
	}
	binary, err := build(ctx, b.dir, "-pgo=off", "-overlay", list)
	if err != nil {
		return "", fmt.Errorf("with the profiler: %w", err)
	}
	return binary, nil
}
