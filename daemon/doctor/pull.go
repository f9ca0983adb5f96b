package doctor

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/testimage"
)

// hub is the registry that every engine can use a mirror for.
const hub = "docker.io"

// maxPulls bounds the test pulls of one engine.
const maxPulls = 16

// pull makes an engine pull the test image from each registry whose pulls should go through
// sidemirror.
func (e *Examination) pull(ctx context.Context, c *Chain, state engine.State) {
	registries := slices.Clone(e.Registries)
	if state.HubOnly {
		registries = slices.DeleteFunc(registries, func(name string) bool { return name != hub })
	}
	registries = registries[:min(len(registries), maxPulls)]
	if len(registries) == 0 {
		c.add(Link{Name: "test pull", State: Skipped, Text: "no registry is configured"})
		return
	}
	for _, registry := range registries {
		// A tag that was never used before is in no engine's store.
		reference := registry + "/" + testimage.Repository + ":" + strings.ToLower(rand.Text())
		err := e.Try(ctx, cmp.Or(state.Home, state.Engine), reference)
		switch {
		case ctx.Err() != nil:
			c.add(Link{Name: "test pull", State: Skipped, Text: "interrupted"})
			return
		case errors.Is(err, hostconfig.ErrNoPull):
			c.add(Link{Name: "test pull", State: Skipped, Text: "this engine cannot be asked to pull from here"})
			return
		case err != nil:
			c.add(Link{Name: "test pull", State: Broken, Problems: []*problem.Problem{{
				Code: "test-pull-failed", Path: registry,
				Text: fmt.Sprintf("the engine could not pull the test image, which no registry has and sidemirror serves itself; it reported: %s", oneLine(err)),
				Hint: hintOf(state.Engine),
			}}})
			return
		}
	}
	c.add(Link{Name: "test pull", State: Sound, Text: "pulled sidemirror's test image as " + strings.Join(registries, ", ")})
}

// hintOf says where an engine reports what it does.
func hintOf(name string) string {
	switch name {
	case engine.Podman:
		return "see the files of registries.conf: containers-registries.conf(5)"
	case engine.Containerd:
		return "see config_path in containerd config dump, and journalctl -u containerd"
	case engine.CRIO:
		return "see journalctl -u crio"
	}
	return "see journalctl -u docker, and the hosts.toml files in /etc/docker/certs.d"
}

// oneLine bounds what an engine reports.
func oneLine(err error) string {
	const most = 300
	text := strings.Join(strings.Fields(strings.ToValidUTF8(err.Error(), "")), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

func files(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}
