package keeper

import (
	"slices"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

// Options are the choices of a command line, which add to those of the configuration.
type Options struct {
	// Engines, if not empty, are the engines to configure, whatever the configuration says.
	// Other engines are left alone.
	Engines []string

	// RestartContainerd allows sidemirror to set config_path in containerd's configuration,
	// and to restart containerd for it.
	RestartContainerd bool

	// LoggedIn are registries that logins make known.
	LoggedIn []string

	// RestartBuildKit allows sidemirror to restart buildkitd after its configuration was written.
	RestartBuildKit bool

	// AllowUnprivilegedPort allows engines to be pointed at a port that every user can listen at.
	AllowUnprivilegedPort bool
}

// Desired returns what the engines' configuration should say under c and o. It fails if c has
// no address that engines on this host can reach.
func Desired(c *config.Config, o Options) (engine.Desired, error) {
	mirror, err := c.MirrorURL()
	if err != nil {
		return engine.Desired{}, err
	}
	want := engine.Desired{
		Mirror:            mirror,
		RestartContainerd: o.RestartContainerd || c.Engine.Containerd.Restart,

		RestartBuildKit: o.RestartBuildKit || c.Engine.BuildKit.Restart,

		AllowUnprivilegedPort: o.AllowUnprivilegedPort,

		CopyClientKeys: c.Engine.AdoptClientKeys,

		Service:         len(o.Engines) == 0,
		Helpers:         c.RunsHelpers(),
		CredentialFiles: c.Credentials.Files,
		GuestPort:       len(c.Guests.Networks) > 0 && c.Guests.Port < 1024,
	}
	if !want.Service {
		want.Leave = append(want.Leave, engine.Sidemirror)
	}
	for _, r := range c.Registries {
		if r.Name == config.Wildcard {
			want.Any = true
		} else {
			want.Registries = append(want.Registries, r.Name)
		}
		if r.Explicit {
			want.Explicit = append(want.Explicit, r.Name)
		}
	}
	want.Registries = withNames(want.Registries, o.LoggedIn)
	for _, e := range []struct {
		name    string
		enabled bool
	}{{engine.Docker, c.Engine.Docker.Enabled}, {engine.Containerd, c.Engine.Containerd.Enabled},
		{engine.Podman, c.Engine.Podman.Enabled}, {engine.CRIO, c.Engine.CRIO.Enabled}, {engine.BuildKit, c.Engine.BuildKit.Enabled}} {
		switch {
		case len(o.Engines) == 0 && e.enabled, slices.Contains(o.Engines, e.name):
			want.Engines = append(want.Engines, e.name)
		case len(o.Engines) > 0:
			want.Leave = append(want.Leave, e.name)
		}
	}
	return want, nil
}

// withNames returns list with those of names that it does not have.
func withNames(list, names []string) []string {
	list = slices.Clone(list)
	for _, name := range names {
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}
