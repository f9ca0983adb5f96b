package certsd

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/lazyregexp"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// registryName is the registry of a reference: a host name or an address, with or without a port.
// It becomes the name of a folder.
var registryName = lazyregexp.New(`^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?$`)

// CheckName refuses a registry that no folder can be made for, or that is sidemirror itself.
func CheckName(registry, mirror string) error {
	switch {
	case len(registry) > 255 || !registryName().MatchString(registry):
		return &problem.Problem{
			Code: "registry-name-invalid", Text: fmt.Sprintf("%q is not the name of a registry, so that no folder can be made for it", registry),
			Hint: "write it as host or host:port",
		}
	case strings.HasSuffix(mirror, "://"+registry) || isOwn(mirror, registry):
		return &problem.Problem{
			Code: "registry-is-sidemirror", Text: registry + " is sidemirror's own address: mirroring it would be a loop",
			Hint: "remove it from the registries",
		}
	}
	return nil
}

// isOwn reports whether a registry is where sidemirror listens: its port, on loopback.
func isOwn(mirror, registry string) bool {
	u, err := url.Parse(mirror)
	return err == nil && u.Port() != "" && strings.HasSuffix(registry, ":"+u.Port()) && splice.IsLoopback("http://"+registry)
}
