// Package kubelet finds out how the kubelet of a host gets logins for registries.
package kubelet

import (
	"path"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/hostconfig/unitfile"
)

// Unit is the unit that runs the kubelet.
const Unit = "kubelet.service"

// Query finds the kubelet that runs. It has no socket by which it could be known, only its unit.
var Query = process.Query{Name: "kubelet", Units: []string{Unit}}

// Plugins are the credential provider plugins of a kubelet.
type Plugins struct {
	Config string // --image-credential-provider-config
	Dir    string // --image-credential-provider-bin-dir
}

// embedded are where k3s and RKE2, which have the kubelet in them, look by default. RKE2's agent has
// the same folders as k3s.
var embedded = Plugins{
	Config: "/var/lib/rancher/credentialprovider/config.yaml",
	Dir:    "/var/lib/rancher/credentialprovider/bin",
}

// Find returns the plugins of the host's kubelet. args are its arguments if it runs; with nil, those
// of its unit count. ok is false if it has no plugins, or if that cannot be found out.
func Find(h *hostfs.Host, args []string) (p Plugins, ok bool) {
	if args == nil {
		service, err := unitfile.Read(h, Unit)
		if err != nil {
			return Plugins{}, false
		}
		args = service.Args
	}
	p = Plugins{
		Config: process.Flag(args, "--image-credential-provider-config"),
		Dir:    process.Flag(args, "--image-credential-provider-bin-dir"),
	}
	if p.usable() {
		return p, true
	}
	if len(args) == 0 && h.IsFile(embedded.Config) && h.IsDir(embedded.Dir) {
		return embedded, true
	}
	return Plugins{}, false
}

func (p Plugins) usable() bool {
	for _, name := range []string{p.Config, p.Dir} {
		if !path.IsAbs(name) || unitfile.Unresolved(name) {
			return false
		}
	}
	return true
}
