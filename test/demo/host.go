package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// host is a tree that stands for the root of a host.
type host struct{ root string }

// What an owner wrote by hand: tabs, a comment, an order and a mode of their own.
var owned = []struct {
	path, content string
	mode          fs.FileMode
}{
	{"etc/docker/daemon.json", "{\n\t\"log-driver\": \"json-file\",\n\t\"log-opts\": {\"max-size\": \"10m\"}\n}\n", 0o640},
	{"etc/containerd/config.toml", "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n" +
		"  config_path = \"/etc/containerd/certs.d\"\n", 0o644},
	{"etc/containerd/certs.d/quay.io/hosts.toml", "# ours, ask the network team before touching it\n" +
		"server = \"https://quay.io\"\n\n[host.\"https://mirror.corp.example\"]\n  capabilities = [\"pull\"]\n", 0o644},
}

func newHost(s *scene) *host {
	h := &host{root: filepath.Join(s.TempDir(), "host")}
	for _, file := range owned {
		path := h.path(file.path)
		s.must(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(file.content), file.mode))
	}
	return h
}

func (h *host) path(name string) string { return filepath.Join(h.root, name) }

// short is how the transcript names a path of the host.
func (h *host) short(name string) string { return "host/" + name }

// show prints the tree's files and returns the checksum of it all: the names, modes
// and bytes of everything in it, folders and links too.
func (h *host) show(s *scene) string {
	whole := sha256.New()
	s.must(filepath.WalkDir(h.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(h.root, path)
		if err != nil {
			return err
		}
		var content []byte
		switch {
		case info.Mode().IsRegular():
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
			s.line("  %s %s %s", s.dim(info.Mode().String()), fmt.Sprintf("%-50s", h.short(name)), s.dim(fmt.Sprintf("%4d bytes", len(content))))
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			content = []byte(target)
		}
		fmt.Fprintf(whole, "%v %q %x\n", info.Mode(), name, sha256.Sum256(content))
		return nil
	}))
	sum := "sha256:" + hex.EncodeToString(whole.Sum(nil))
	s.line("  %s", s.dim("checksum of names, modes and bytes: ")+sum)
	return sum
}
