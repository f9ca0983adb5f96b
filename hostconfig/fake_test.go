package hostconfig

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/hostconfig/socket"
	"github.com/sidemirror/sidemirror/internal/portowner"
)

// fakeRunning is a host on which a dockerd runs, and a containerd if it has arguments. Real engines
// are tested in the test module; this is for faults that they cannot be made to show, and for speed.
type fakeRunning struct {
	host *Host
	off  bool // no dockerd runs

	docker     []string            // dockerd's arguments
	containerd []string            // containerd's arguments; nil if none runs
	crio       bool                // CRI-O runs
	homes      map[string][]string // arguments of the containerds of distributions, by their names
	homeInfo   live.Info           // what these containerds report
	buildkit   []string            // buildkitd's arguments; nil if none runs
	started    time.Time
	execute    bool // programs of the tree are executed
	users      []int
	names      map[string][]netip.Addr

	owner      portowner.Owner
	firstPort  uint16
	deaf       error
	mirrors    []string
	store      string
	version    string
	configPath *string // what containerd's introspection says
	reloads    int
	restarts   int

	pull func(ctx context.Context, q ask, reference string) error
}

// ask is what an engine is asked to pull by.
type ask struct{ engine, folder string }

// running makes h a host on which a dockerd runs.
func running(h *Host) *fakeRunning {
	f := &fakeRunning{host: h}
	h.Running = f
	return f
}

// idle makes h a running host on which no engine runs.
func idle(h *Host) *fakeRunning {
	f := running(h)
	f.off = true
	return f
}

func (f *fakeRunning) Daemon(_ context.Context, name string) live.Daemon {
	switch {
	case name == engine.Docker && !f.off:
		return fakeDaemon{f, name}
	case name == engine.Containerd && f.containerd != nil, name == engine.CRIO && f.crio, name == engine.BuildKit && f.buildkit != nil:
		return fakeDaemon{f, name}
	case f.homes[name] != nil:
		return fakeDaemon{f, name}
	}
	return nil
}

func (f *fakeRunning) Stopped(_ context.Context, name string) bool {
	return f.Daemon(context.Background(), name) == nil
}

func (f *fakeRunning) Users(string) []int { return f.users }

func (f *fakeRunning) Output(ctx context.Context, _, program string, args ...string) string {
	if !f.execute {
		return ""
	}
	out, err := exec.CommandContext(ctx, f.host.path(program), args...).Output()
	if err != nil {
		return ""
	}
	return string(out)
}

func (f *fakeRunning) Owner(netip.AddrPort) (portowner.Owner, error) { return f.owner, nil }

func (f *fakeRunning) FirstUnprivilegedPort() uint16 { return cmp.Or(f.firstPort, 1024) }

func (f *fakeRunning) Lookup(_ context.Context, name string) ([]netip.Addr, error) {
	if list, ok := f.names[name]; ok {
		return list, nil
	}
	return nil, errors.New("no such host")
}

// fakeDaemon is dockerd or containerd of a fakeRunning.
type fakeDaemon struct {
	*fakeRunning
	name string
}

func (d fakeDaemon) Args() []string {
	if d.name == engine.Containerd {
		return d.containerd
	}
	if d.name == engine.BuildKit {
		return d.buildkit
	}
	if args, ok := d.homes[d.name]; ok {
		return args
	}
	return append([]string{"dockerd"}, d.docker...)
}

func (d fakeDaemon) Started() time.Time { return d.started }

// Signal takes daemon.json as dockerd does: a key that is gone changes nothing.
func (d fakeDaemon) Signal(_ context.Context, verb live.Verb) error {
	if verb == live.Restart {
		d.restarts++
		return nil
	}
	if d.deaf != nil {
		return d.deaf
	}
	d.reloads++
	data, err := os.ReadFile(d.host.path(cmp.Or(process.Flag(d.docker, "--config-file"), dockerJSON)))
	if err != nil {
		return nil
	}
	var conf struct {
		Mirrors *[]string `json:"registry-mirrors"`
	}
	if json.Unmarshal(data, &conf) != nil || conf.Mirrors == nil {
		return nil
	}
	d.mirrors = nil
	for _, m := range *conf.Mirrors {
		d.mirrors = append(d.mirrors, m+"/")
	}
	return nil
}

func (d fakeDaemon) Info(context.Context) (live.Info, error) {
	if d.name == engine.Containerd {
		if d.configPath == nil {
			return live.Info{}, socket.ErrUnreachable
		}
		return live.Info{Version: d.version, ConfigPath: *d.configPath, KnowsConfigPath: true}, nil
	}
	if d.homes[d.name] != nil {
		return d.homeInfo, nil
	}
	return live.Info{Mirrors: d.mirrors, Store: cmp.Or(d.store, "overlay2"), Version: d.version}, nil
}

func (d fakeDaemon) Pull(ctx context.Context, reference string) error {
	if d.pull == nil {
		return socket.ErrUnreachable
	}
	folder := dockerHosts
	if d.name == engine.Containerd {
		folder = "/srv/hosts"
	}
	if d.homes[d.name] != nil {
		folder = d.homeInfo.ConfigPath
	}
	return d.pull(ctx, ask{d.name, folder}, reference)
}

// failing is a step that fails one operation on one path.
func failing(op, path string, err error) func(string, string) error {
	return func(o, p string) error {
		if o == op && p == path {
			return err
		}
		return nil
	}
}

func inode(t *testing.T, name string) uint64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

func (d fakeDaemon) Remove(context.Context, string) error { return nil }
