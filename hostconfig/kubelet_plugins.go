package hostconfig

import (
	"context"
	"fmt"

	"github.com/sidemirror/sidemirror/hostconfig/kubelet"
	"github.com/sidemirror/sidemirror/hostconfig/process"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// OfferKubeletPlugins returns a note if the host's kubelet gets logins by credential provider plugins,
// which sidemirror could use for every engine; nil if it has none.
func OfferKubeletPlugins(ctx context.Context, h *Host) *problem.Problem {
	t, err := h.open()
	if err != nil {
		return nil
	}
	defer t.Close()
	var args []string
	if h.Root == "/" && h.Units != nil {
		if p := (process.Finder{Manager: h.Units}).Find(ctx, kubelet.Query); p != nil {
			args = p.Args
		}
	}
	plugins, ok := kubelet.Find(t, args)
	if !ok {
		return nil
	}
	return &problem.Problem{
		Code: "kubelet-plugins", Path: plugins.Config,
		Text: "the kubelet gets logins from its credential provider plugins, and sidemirror could get them there for every engine",
		Hint: fmt.Sprintf("set plugins = %q and plugin_dir = %q in [credentials] of the configuration", plugins.Config, plugins.Dir),
	}
}
