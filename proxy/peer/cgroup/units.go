package cgroup

import (
	"os"
	"slices"
	"strings"
)

// Names in a list of units that are not names of units.
const (
	defaults = "default" // the engines and root's login sessions
	anyUnit  = "*"       // whatever is not a container
)

// engines are the units in which container engines and their tools pull images.
var engines = []string{
	"docker.service", "containerd.service", "cri-docker.service", "crio.service", "kubelet.service",
	"podman.service", "podman-auto-update.service", "buildkit.service", "buildkitd.service",
	"k3s.service", "k3s-*.service", "rke2-*.service", "k0scontroller.service", "k0sworker.service",
	"snap.docker.dockerd.service", "snap.k8s.containerd.service", "snap.microk8s.daemon-*.service",
	"stargz-snapshotter.service", "soci-snapshotter*.service", "nydus-snapshotter.service", // which fetch layers for containerd
}

// sessions are where an administrator's commands run: login sessions, logins on hosts whose logins
// have no session, and timed commands.
var sessions = []string{
	"user.slice",
	"ssh.service", "sshd.service", "ssh@*.service", "sshd@*.service",
	"getty@*.service", "serial-getty@*.service", "console-getty.service", "container-getty@*.service", "container-shell@*.service",
	"rescue.service", "emergency.service", "debug-shell.service",
	"cron.service", "crond.service", "atd.service",
}

// Units are the units whose processes are trusted.
type Units struct {
	names    []string
	anything bool
	root     bool // processes outside every unit are trusted
}

// NewUnits returns the units of a list. Each element is the name of a service, scope or slice, in
// which "*" stands for any characters, or the path of a group. "default" stands for the engines and
// for the sessions of an administrator, and "*" for everything that is not a container.
//
// On a host without systemd, which has no units, "default" includes the root group.
func NewUnits(list []string) Units {
	_, err := os.Stat("/run/systemd/system") // sd_booted(3)
	return newUnits(list, err == nil)
}

func newUnits(list []string, systemd bool) Units {
	var u Units
	for _, name := range list {
		switch name {
		case anyUnit:
			u.anything = true
		case defaults:
			u.names = append(append(u.names, engines...), sessions...)
			u.root = u.root || !systemd
		default:
			u.names = append(u.names, name)
		}
	}
	return u
}

// Include reports whether processes in the group at path are trusted. Those of containers never are.
//
// A service or scope includes its own group alone, and not those in it, and only where systemd has
// it: below slices. A slice includes the services and scopes in it. Groups that a unit makes for
// itself may be containers, whatever they are called.
func (u Units) Include(path string) bool {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	switch {
	case OfContainer(path):
		return false
	case u.anything || slices.Contains(u.names, path):
		return true
	case path == Root || path == "/init": // where container images of engines put what they start with
		return u.root
	}
	unit, above := parts[len(parts)-1], parts[:len(parts)-1]
	for _, name := range u.names {
		if strings.HasSuffix(name, ".slice") {
			if inSlice(name, unit, above) {
				return true
			}
		} else if matches(name, unit) && !slices.ContainsFunc(above, isNoSlice) || u.root && len(above) == 0 && openRC(name) == unit {
			return true
		}
	}
	return false
}

// inSlice reports whether a unit that is below the groups above is in the slice called name: below it
// are only slices and the service managers of users, whose units are those of a user.
func inSlice(name, unit string, above []string) bool {
	if !strings.HasSuffix(unit, ".scope") && !strings.HasSuffix(unit, ".service") {
		return false
	}
	found := slices.IndexFunc(above, func(part string) bool { return matches(name, part) })
	if found < 0 || slices.ContainsFunc(above[:found], isNoSlice) {
		return false
	}
	managers := 0
	for _, part := range above[found:] {
		switch {
		case matches("user@*.service", part) && managers == 0:
			managers++
		case isNoSlice(part):
			return false
		}
	}
	return true
}

func isNoSlice(part string) bool { return !strings.HasSuffix(part, ".slice") }

// openRC returns the group in which OpenRC starts the service that systemd calls unit.
func openRC(unit string) string { return "openrc." + strings.TrimSuffix(unit, ".service") }

// matches reports whether name is pattern, in which "*" stands for any characters.
func matches(pattern, name string) bool {
	before, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == name
	}
	if !strings.HasPrefix(name, before) {
		return false
	}
	name = name[len(before):]
	for {
		part, more, again := strings.Cut(rest, "*")
		if !again {
			return strings.HasSuffix(name, part)
		}
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name, rest = name[at+len(part):], more
	}
}
