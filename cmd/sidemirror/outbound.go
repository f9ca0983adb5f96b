package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/sidemirror/sidemirror/daemon"
	"github.com/sidemirror/sidemirror/daemon/keeper"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/hostconfig"
)

// outbound returns the forward proxy through which sidemirror reaches registries with what a plan found
// on the host, unless the environment of its service names one; nil if there is none.
func (f *hostFlags) outbound(ctx context.Context, plan hostconfig.Plan) (*state.Outbound, error) {
	c, err := f.load(ctx)
	if err != nil {
		return nil, err
	}
	return daemon.Outbound(c, keeper.EngineProxy(plan)), nil
}

// outbound prints the forward proxy through which registries are reached:
// "outbound    through http://proxy.example:3128 (docker.service); directly: 10.0.0.0/8".
func (p *printer) outbound(o *state.Outbound) {
	if o != nil {
		p.printf("%-10s  %s\n", "outbound", printable(outboundText(*o)))
	}
}

// outboundText says which forward proxy is used and where it is set.
func outboundText(o state.Outbound) string {
	var ways []string
	if o.HTTPProxy == o.HTTPSProxy {
		ways, o.HTTPProxy, o.HTTPSProxy = []string{"through " + o.HTTPSProxy}, "", ""
	}
	if o.HTTPSProxy != "" {
		ways = append(ways, "https through "+o.HTTPSProxy)
	}
	if o.HTTPProxy != "" {
		ways = append(ways, "http through "+o.HTTPProxy)
	}
	text := fmt.Sprintf("%s (%s)", strings.Join(ways, ", "), o.From)
	if o.NoProxy != "" {
		text += "; directly: " + strings.ReplaceAll(o.NoProxy, ",", ", ")
	}
	return text
}
