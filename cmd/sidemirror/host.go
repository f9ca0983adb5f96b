package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/keeper"
	"github.com/sidemirror/sidemirror/daemon/sdnotify"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential/sealed"
)

// engineNames are the engines that --engine takes.
var engineNames = []string{engine.Docker, engine.Containerd, engine.Podman, engine.CRIO, engine.BuildKit}

// hostFlags are what plan, apply and revert have in common.
type hostFlags struct {
	globals *globals
	root    string
	engines []string
	restart bool

	restartBuildKit bool
	anyPort         bool
}

func (f *hostFlags) addRoot(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.root, "root", "/", "work on the host tree under this `folder`, without signalling any engine")
}

func (f *hostFlags) addEngines(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.engines, "engine", nil, "only these `engines` (docker, containerd, podman, crio, buildkit), even if they are not found")
	cmd.Flags().BoolVar(&f.restart, "restart-containerd", false, "set config_path in containerd's configuration if it needs that, and restart containerd")
	cmd.Flags().BoolVar(&f.restartBuildKit, "restart-buildkit", false, "restart buildkitd after its configuration was written; builds that run are lost")
	cmd.Flags().BoolVar(&f.anyPort, "allow-unprivileged-port", false, "allow a port that every user can open; remembered until revert")
}

// host returns the host that the flags name.
func (f *hostFlags) host() (*hostconfig.Host, error) {
	root, err := filepath.Abs(f.root)
	if err != nil {
		return nil, fmt.Errorf("finding --root %s: %w", f.root, err)
	}
	for _, name := range f.engines {
		if !slices.Contains(engineNames, name) {
			return nil, usageError{&problem.Problem{
				Code: "wrong-usage",
				Text: fmt.Sprintf("--engine takes docker, containerd, podman, crio or buildkit, not %q", name),
				Hint: didYouMean(name, engineNames),
			}}
		}
	}
	h := &hostconfig.Host{Root: root, Present: f.engines}
	if root == "/" {
		h.Units = sdnotify.Units{}
	}
	return h, nil
}

// source returns where the configuration is read from: under --root it is the tree's, unless --config
// names another.
func (f *hostFlags) source() config.Source {
	return config.Source{Path: f.globals.configPath, Environ: os.Environ(), Root: f.root}
}

func (f *hostFlags) options() keeper.Options {
	return keeper.Options{Engines: f.engines, RestartContainerd: f.restart, RestartBuildKit: f.restartBuildKit, AllowUnprivilegedPort: f.anyPort}
}

// loggedIn returns the registries of the host that have a login. Only root can find that out.
func (f *hostFlags) loggedIn() ([]string, error) {
	names, err := sealed.Registries(filepath.Join(f.root, sealed.Folder))
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("finding out which registries have a login: %w", err)
	}
	return names, nil
}

// desiredBy returns what c and the flags want of the host.
func (f *hostFlags) desiredBy(c *config.Config) (engine.Desired, error) {
	o := f.options()
	var err error
	if o.LoggedIn, err = f.loggedIn(); err != nil {
		return engine.Desired{}, err
	}
	return keeper.Desired(c, o)
}

// load reads the configuration. On the running host its addresses are those of systemd's sockets.
func (f *hostFlags) load(ctx context.Context) (*config.Config, error) {
	c, err := f.source().Load()
	if err == nil && f.root == "/" {
		err = useSockets(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// useSockets makes c use the addresses at which systemd opens sockets for the proxy. It fails if c
// names others. If systemd does not run, or cannot be asked, c stays as it is.
func useSockets(ctx context.Context, c *config.Config) error {
	open, err := sdnotify.Units{}.SocketAddresses(ctx)
	if err != nil {
		return nil //nolint:nilerr // there is nothing to compare c with
	}
	return c.UseSockets(open)
}

// desired returns what the configuration and the flags want of the host.
func (f *hostFlags) desired(ctx context.Context) (engine.Desired, error) {
	c, err := f.load(ctx)
	if err != nil {
		return engine.Desired{}, err
	}
	return f.desiredBy(c)
}

// planFor compares the host with what c and the flags want of it.
func (f *hostFlags) planFor(ctx context.Context, h *hostconfig.Host, c *config.Config) (hostconfig.Plan, error) {
	want, err := f.desiredBy(c)
	if err != nil {
		return hostconfig.Plan{}, err
	}
	return hostconfig.Make(ctx, h, want)
}

// handOver tells the proxy of the running host how the engines reach registries.
func (f *hostFlags) handOver(ctx context.Context, plan hostconfig.Plan) error {
	if f.root != "/" {
		return nil
	}
	c, err := f.load(ctx)
	if err != nil {
		return err
	}
	return keeper.HandOver(c.Engine.HandoverDir, plan)
}

// plan compares the host with what is wanted of it.
func (f *hostFlags) plan(ctx context.Context) (*hostconfig.Host, hostconfig.Plan, error) {
	h, err := f.host()
	if err != nil {
		return nil, hostconfig.Plan{}, err
	}
	c, err := f.load(ctx)
	if err != nil {
		return nil, hostconfig.Plan{}, err
	}
	plan, err := f.planFor(ctx, h, c)
	if err == nil && c.Credentials.Plugins == "" {
		if note := hostconfig.OfferKubeletPlugins(ctx, h); note != nil {
			plan.Notes = append(plan.Notes, note)
		}
	}
	return h, plan, err
}

// undo returns the command that restores all files.
func (f *hostFlags) undo() string {
	if f.root == "/" {
		return "sidemirror revert"
	}
	return "sidemirror revert --root " + f.root
}
