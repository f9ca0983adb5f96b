package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/internal/portowner"
)

const (
	ourMirror  = "http://127.0.0.1:305"
	daemonJSON = "etc/docker/daemon.json"
	configTOML = "etc/containerd/config.toml"
)

// fakeHost is a host's tree on which a dockerd runs, and a containerd if that is on. The dockerd takes
// its daemon.json when it is reloaded. Real engines are tested in the test module; what these tests
// are about is when a file is changed back.
type fakeHost struct {
	root       string
	containerd bool

	mu       sync.Mutex
	args     []string
	store    string
	mirrors  []string
	deaf     error
	reloads  int
	restarts int

	reopened atomic.Int64
	started  atomic.Int64
	sockets  atomic.Pointer[[]netip.AddrPort] // that the service manager opens
}

func (f *fakeHost) SocketAddresses(context.Context) ([]netip.AddrPort, error) {
	if list := f.sockets.Load(); list != nil {
		return *list, nil
	}
	return nil, nil
}

func (f *fakeHost) Daemon(_ context.Context, name string) live.Daemon {
	if name == engine.Containerd && !f.containerd {
		return nil
	}
	return fakeDaemon{f, name}
}

func (*fakeHost) Owner(netip.AddrPort) (portowner.Owner, error)             { return portowner.Owner{}, nil }
func (*fakeHost) FirstUnprivilegedPort() uint16                             { return 1024 }
func (*fakeHost) Stopped(context.Context, string) bool                      { return false }
func (*fakeHost) Users(string) []int                                        { return nil }
func (*fakeHost) Output(_ context.Context, _, _ string, _ ...string) string { return "" }
func (*fakeHost) Lookup(context.Context, string) ([]netip.Addr, error) {
	return nil, errors.New("no name server")
}
func (*fakeHost) Reload(context.Context, string) error           { return errors.New("no such unit") }
func (*fakeHost) Restart(context.Context, string) error          { return errors.New("no such unit") }
func (*fakeHost) MainPID(context.Context, string) (int, error)   { return 0, nil }
func (*fakeHost) Outdated(context.Context, string) (bool, error) { return false, nil }
func (*fakeHost) Reconfigure(context.Context, string) error      { return errors.New("no such unit") }
func (*fakeHost) Active(context.Context, string) (bool, error)   { return false, nil }
func (f *fakeHost) ReopenSockets(context.Context) (bool, error)  { f.reopened.Add(1); return true, nil }
func (f *fakeHost) StartProxy(context.Context) (bool, error)     { f.started.Add(1); return true, nil }
func (f *fakeHost) count() int                                   { f.mu.Lock(); defer f.mu.Unlock(); return f.reloads }
func (f *fakeHost) path(name string) string                      { return filepath.Join(f.root, name) }
func (f *fakeHost) read(name string) string {
	data, _ := os.ReadFile(f.path(name))
	return string(data)
}
func (f *fakeHost) start(args ...string) { f.mu.Lock(); defer f.mu.Unlock(); f.args = args }

// fakeDaemon is dockerd or containerd of a fakeHost.
type fakeDaemon struct {
	*fakeHost
	name string
}

func (d fakeDaemon) Args() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string{d.name}, d.args...)
}

func (d fakeDaemon) Started() time.Time { return time.Time{} }

func (d fakeDaemon) Pull(context.Context, string) error { return errors.New("no such image") }

func (d fakeDaemon) Info(context.Context) (live.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.name == engine.Containerd {
		return live.Info{}, errors.New("not told")
	}
	return live.Info{Store: d.store, Mirrors: slices.Clone(d.mirrors)}, nil
}

// Signal takes daemon.json as dockerd does: a key that is gone changes nothing.
func (d fakeDaemon) Signal(_ context.Context, verb live.Verb) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deaf != nil {
		return d.deaf
	}
	if verb == live.Restart {
		d.restarts++
		return nil
	}
	d.reloads++
	name := daemonJSON
	if i := slices.Index(d.args, "--config-file"); i >= 0 {
		name = d.args[i+1]
	}
	var conf struct {
		Mirrors *[]string `json:"registry-mirrors"`
	}
	if json.NewDecoder(strings.NewReader(d.read(name))).Decode(&conf) == nil && conf.Mirrors != nil {
		d.mirrors = *conf.Mirrors
	}
	return nil
}

func (d fakeDaemon) Remove(context.Context, string) error { return nil }
