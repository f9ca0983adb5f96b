package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/hostconfig"
)

// hostFlags are what plan, apply and revert have in common.
type hostFlags struct {
	globals *globals
	root    string
	engines []string
	restart bool
}

func (f *hostFlags) addRoot(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.root, "root", "/", "work on the host's tree under this `folder`; nothing is signalled then")
}

func (f *hostFlags) addEngines(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.engines, "engine", nil, "only these `engines` (docker, containerd), found or not")
	cmd.Flags().BoolVar(&f.restart, "restart-containerd", false, "set config_path in containerd's configuration where it takes that, and restart it")
}

// host is the host that the flags name.
func (f *hostFlags) host() (*hostconfig.Host, error) {
	root, err := filepath.Abs(f.root)
	if err != nil {
		return nil, fmt.Errorf("finding --root %s: %w", f.root, err)
	}
	for _, name := range f.engines {
		if name != hostconfig.Docker && name != hostconfig.Containerd {
			return nil, usageError{fmt.Errorf("--engine knows docker and containerd, not %q", name)}
		}
	}
	h := &hostconfig.Host{Root: root, Present: f.engines}
	if root == "/" {
		h.Units = sdnotify.Units{}
	}
	return h, nil
}

// desired is what the configuration and the flags want of the host.
func (f *hostFlags) desired(h *hostconfig.Host) (hostconfig.Desired, error) {
	c, err := f.load(h)
	if err != nil {
		return hostconfig.Desired{}, err
	}
	return f.want(c)
}

// plan compares the host with what is wanted of it.
func (f *hostFlags) plan(ctx context.Context) (*hostconfig.Host, hostconfig.Plan, error) {
	h, err := f.host()
	if err != nil {
		return nil, hostconfig.Plan{}, err
	}
	want, err := f.desired(h)
	if err != nil {
		return nil, hostconfig.Plan{}, err
	}
	plan, err := hostconfig.Make(ctx, h, want)
	return h, plan, err
}

// want is desired of a configuration that was read.
func (f *hostFlags) want(c *config.Config) (hostconfig.Desired, error) {
	url, err := mirrorURL(c)
	if err != nil {
		return hostconfig.Desired{}, err
	}
	want := hostconfig.Desired{Mirror: url, RestartContainerd: f.restart || c.Engine.Containerd.Restart}
	for _, r := range c.Registries {
		if r.Name != "*" {
			want.Registries = append(want.Registries, r.Name)
		}
	}
	for _, e := range []struct {
		name    string
		enabled bool
	}{{hostconfig.Docker, c.Engine.Docker.Enabled}, {hostconfig.Containerd, c.Engine.Containerd.Enabled}} {
		switch {
		case len(f.engines) == 0 && e.enabled, slices.Contains(f.engines, e.name):
			want.Engines = append(want.Engines, e.name)
		case len(f.engines) > 0:
			want.Leave = append(want.Leave, e.name)
		}
	}
	return want, nil
}

// load reads the configuration: under --root that of the tree, unless --config
// names another.
func (f *hostFlags) load(h *hostconfig.Host) (*config.Config, error) {
	if f.globals.configPath != "" || h.Root == "/" {
		return config.Load(f.globals.configPath, os.Environ())
	}
	root, err := os.OpenRoot(h.Root)
	if err != nil {
		return nil, fmt.Errorf("opening --root: %w", err)
	}
	defer root.Close()
	_, err = root.Stat(strings.TrimPrefix(config.DefaultFile, "/"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return defaults()
	case err != nil:
		return nil, fmt.Errorf("reading the tree's configuration: %w", err)
	}
	return config.Load(filepath.Join(h.Root, config.DefaultFile), os.Environ())
}

// defaults are those of a tree without a configuration: an empty file, since
// naming none would be read as this host's own.
func defaults() (*config.Config, error) {
	empty, err := os.CreateTemp("", "sidemirror-*.toml")
	if err != nil {
		return nil, fmt.Errorf("making an empty configuration: %w", err)
	}
	defer func() { _ = os.Remove(empty.Name()) }()
	defer empty.Close()
	return config.Load(empty.Name(), os.Environ())
}

// mirrorURL is the address that engines on this host reach us by.
func mirrorURL(c *config.Config) (string, error) {
	for _, at := range c.Listen {
		if at.Addr().IsLoopback() {
			return "http://" + at.String(), nil
		}
	}
	for _, at := range c.Listen {
		if at.Addr().IsUnspecified() {
			return "http://" + netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port()).String(), nil
		}
	}
	return "", usageError{fmt.Errorf("%s: listen has no loopback address, by which alone the engines are to reach sidemirror; add \"127.0.0.1:305\"", c.File)}
}

// undo is the command that gives all back.
func (f *hostFlags) undo() string {
	if f.root == "/" {
		return "sidemirror revert"
	}
	return "sidemirror revert --root " + f.root
}
