package hostconfig

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/buildkit"
	"github.com/sidemirror/sidemirror/hostconfig/containerd"
	"github.com/sidemirror/sidemirror/hostconfig/containersimage"
	"github.com/sidemirror/sidemirror/hostconfig/docker"
	"github.com/sidemirror/sidemirror/hostconfig/egress"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/ownunit"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/internal/portowner"
)

// Units is the service manager that the engines run under.
type Units = live.Units

// running returns what runs on the host, nil for a tree.
func (h *Host) running(tree *hostfs.Host) live.Host {
	switch {
	case h.Running != nil:
		return h.Running
	case h.Root != "/" || h.Units == nil:
		return nil
	case h.system == nil:
		h.system = &system{units: h.Units, said: make(map[string]string)}
	}
	h.system.tree = tree
	return h.system
}

// egressUnits returns the service manager that knows the environment of the engines' services; nil for
// a tree, and if h's does not.
func (h *Host) egressUnits() egress.Units {
	if units, ok := h.Units.(egress.Units); ok && h.Root == "/" {
		return units
	}
	return nil
}

// system is the running host.
type system struct {
	tree  *hostfs.Host
	units Units
	said  map[string]string // what programs printed; watch looks at the host again and again
}

// queries find the engines that are daemons, and the containerds of distributions by their names.
var queries = makeQueries()

func makeQueries() map[string]process.Query {
	list := containerd.Queries()
	list[engine.Docker], list[engine.Containerd] = docker.Query, containerd.Query
	list[engine.CRIO], list[engine.BuildKit] = containersimage.Query, buildkit.Query
	return list
}

func (s *system) Daemon(ctx context.Context, name string) live.Daemon {
	if name == engine.Sidemirror && s.tree.IsDir("/run/systemd/system") { // sd_booted(3)
		return ownunit.Connect(s.units)
	}
	query, known := queries[name]
	if !known {
		return nil
	}
	p := process.Finder{Manager: s.units}.Find(ctx, query)
	if p == nil {
		return nil
	}
	switch name {
	case engine.Docker:
		return docker.Connect(*p, s.units)
	case engine.BuildKit:
		return buildkit.Connect(*p, s.units)
	case engine.CRIO:
		return containersimage.Connect(*p, s.units)
	}
	return containerd.Connect(s.tree, *p, s.units)
}

func (s *system) Stopped(ctx context.Context, name string) bool {
	query := queries[name]
	// Docker and distributions of Kubernetes run a containerd of their own, of the same name.
	if s.tree.IsDir("/run/systemd/system") {
		for _, unit := range query.Units {
			if active, err := s.units.Active(ctx, unit); err != nil || active {
				return false
			}
		}
		return query.Name == containerd.Query.Name || process.Absent(query.Name)
	}
	return process.Absent(query.Name)
}

func (s *system) Users(name string) []int { return process.Users(name) }

// maxSaid bounds the outputs that are remembered.
const maxSaid = 16

func (s *system) Output(ctx context.Context, basis, program string, args ...string) string {
	if err := s.tree.Trusted(program); err != nil {
		return ""
	}
	info, err := os.Stat(program)
	if err != nil || info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		return ""
	}
	key := fmt.Sprint(program, info.Size(), info.ModTime(), args, basis)
	if text, known := s.said[key]; known {
		return text
	}
	if len(s.said) >= maxSaid {
		clear(s.said)
	}
	s.said[key] = output(ctx, program, args...)
	return s.said[key]
}

func (s *system) Owner(addr netip.AddrPort) (portowner.Owner, error) { return portowner.Of(addr) }

func (s *system) FirstUnprivilegedPort() uint16 {
	return portowner.FirstUnprivileged(portowner.Setting)
}

// lookupLimit is for one name. A name server that does not answer must not hold a plan up.
const lookupLimit = 2 * time.Second

func (s *system) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

const (
	outputLimit = 5 * time.Second
	maxOutput   = 512 << 10
)

// output runs a program and returns what it prints, or nothing if that is more than maxOutput, if
// the program fails, or if it takes longer than outputLimit.
func output(ctx context.Context, program string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, outputLimit)
	defer cancel()
	out := capped{left: maxOutput + 1}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=/usr/bin:/usr/local/bin:/usr/sbin:/usr/local/sbin", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.Stdout = &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil || out.Len() > maxOutput {
		return ""
	}
	return out.String()
}

// capped holds the first bytes and drops the rest, so that the program that writes them is not
// blocked.
type capped struct {
	strings.Builder
	left int
}

func (c *capped) Write(b []byte) (int, error) {
	n := min(len(b), c.left)
	c.left -= n
	c.Builder.Write(b[:n])
	return len(b), nil
}
