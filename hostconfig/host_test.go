package hostconfig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	ourURL = "http://127.0.0.1:305"
	hub    = "docker.io"

	dockerFolder     = "/etc/docker"
	dockerJSON       = dockerFolder + "/daemon.json"
	dockerHosts      = dockerFolder + "/certs.d"
	containerdConfig = "/etc/containerd/config.toml"
	containerdHosts  = "/etc/containerd/certs.d"

	// builtIn is what containerd from 2.2 on reads if config_path is not set.
	builtIn = containerdHosts + ":" + dockerHosts
)

// The marks that the editors write above an entry; [splice.FileMark] is the third.
const (
	tableMark   = "# sidemirror: this table is sidemirror's; to undo: sidemirror revert"
	settingMark = "# sidemirror: this setting is sidemirror's; to undo: sidemirror revert"
)

var longAgo = time.Date(2021, 3, 4, 5, 6, 7, 89, time.UTC)

// host makes a host's tree from files by their paths, each last changed long ago.
func host(t *testing.T, files map[string]string) *Host {
	t.Helper()
	root := memory(t)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(at, []byte(files[name]), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(at, longAgo, longAgo); err != nil {
			t.Fatal(err)
		}
	}
	return &Host{Root: root, Versions: map[string]string{engine.Docker: "28.5.2", engine.Containerd: "2.1.9"}}
}

// memory is a folder in memory where there is such a file system: the tests sync
// thousands of times, and what they are about is not the disk.
func memory(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("/dev/shm", "hostconfig")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	return root
}

func (h *Host) path(name string) string { return filepath.Join(h.Root, name) }

func (h *Host) get(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(h.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (h *Host) put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(h.path(name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (h *Host) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(h.path(name)); err != nil {
		t.Fatal(err)
	}
}

func (h *Host) missing(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Lstat(h.path(name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there: %v", name, err)
	}
}

// snapshot is the whole tree: names, modes, owners, links, bytes, and the times of files.
func (h *Host) snapshot(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(h.Root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			text += " -> " + target
		case info.Mode().IsRegular():
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(data)
			text += " " + info.ModTime().UTC().String() + " " + hex.EncodeToString(sum[:8])
		}
		all[strings.TrimPrefix(name, h.Root)] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sameTree(t *testing.T, want, got map[string]string) {
	t.Helper()
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: was %q, is %q", name, text, got[name])
		}
	}
	for name, text := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: is new: %q", name, text)
		}
	}
}

func desired(registries ...string) engine.Desired {
	return engine.Desired{Mirror: ourURL, Registries: registries, Engines: []string{engine.Docker, engine.Containerd}}
}

func (h *Host) plan(t *testing.T, want engine.Desired) Plan {
	t.Helper()
	plan, err := Make(context.Background(), h, want)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// try applies want and returns the error.
func (h *Host) try(t *testing.T, want engine.Desired) (Result, error) {
	t.Helper()
	return Apply(context.Background(), h, h.plan(t, want))
}

// apply applies want, and wants the host settled after it.
func (h *Host) apply(t *testing.T, want engine.Desired) Result {
	t.Helper()
	result, err := h.try(t, want)
	if err != nil {
		t.Fatal(err)
	}
	before := h.snapshot(t)
	if plan := h.plan(t, want); len(plan.Changes) != 0 {
		t.Errorf("not settled: %+v", plan.Changes)
	}
	if _, err := h.try(t, want); err != nil {
		t.Fatal(err)
	}
	sameTree(t, before, h.snapshot(t))
	return result
}

func (h *Host) revert(t *testing.T) Result {
	t.Helper()
	result, err := Revert(context.Background(), h, ourURL)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// notes are all problems and notes of a plan, one a line, with their hints.
func notes(plan Plan) string {
	var list []string
	for _, state := range plan.Engines {
		for _, p := range slices.Concat(state.Problems, state.Notes) {
			list = append(list, p.Error()+"; "+p.Hint)
		}
	}
	return strings.Join(list, "\n")
}

func refusals(plan Plan) string {
	var errs []error
	for _, p := range plan.Refused {
		errs = append(errs, p)
	}
	return problem.Format("", errors.Join(errs...))
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
}
