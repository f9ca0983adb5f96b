package cgroup

import (
	"slices"
	"strings"
)

// containers are the names that engines give to the groups of containers, and to those that
// contain the groups of containers.
var containers = []string{
	// Docker, also what it builds.
	"docker", "docker-*.scope", "buildkit", "*:docker:*",
	// The kubelet, containerd's CRI, CRI-O.
	"kubepods*", "*-kubepods*", "cri-containerd*", "crio-*",
	// podman and buildah.
	"libpod*", "libpod_parent", "machine.slice", "buildah*",
	// nerdctl and ctr, whose group is called as the namespace.
	"nerdctl*", "default", "k8s.io", "moby",
	// Virtual machines and system containers.
	"machine-*.scope", "lxc", "lxc.*", "lxc@*", "lxc-*", "payload", "systemd-nspawn@*.service", "garden", "ecs", "ecstasks*.slice", "nomad", "nomad.slice",
}

// hexID is the length of the shortest id of a container that counts as one on its own.
const hexID = 32

// OfContainer reports whether the group at path is that of a container, or in one.
func OfContainer(path string) bool {
	return slices.ContainsFunc(strings.Split(strings.TrimPrefix(path, "/"), "/"), isContainer)
}

// isContainer reports whether a group of this name belongs to a container, or contains only those
// that do.
func isContainer(name string) bool {
	for _, pattern := range containers {
		if matches(pattern, name) {
			return true
		}
	}
	// A bare id, and systemd's "PREFIX-ID.scope".
	id := strings.TrimSuffix(name, ".scope")
	id = id[strings.LastIndexByte(id, '-')+1:]
	if len(id) < hexID {
		return false
	}
	return strings.Trim(id, "0123456789abcdef") == ""
}
