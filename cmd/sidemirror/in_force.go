package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/portowner"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// inForce is the configuration that sidemirror works by.
type inForce struct {
	*config.Config
	used     bool // false if none can be found: Config is the default one, with the right addresses
	problems []*problem.Problem
}

// inForce returns the configuration that the proxy uses: if the one on disk cannot be used, the last
// good one, and a problem.
func (f *hostFlags) inForce(ctx context.Context, lastGood config.LastGood) (inForce, error) {
	c, err := f.load(ctx)
	unreadable := errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 // which tells nothing about the host
	if err == nil || f.root != "/" || unreadable {
		return inForce{Config: c, used: true}, err
	}
	wrong := []*problem.Problem{{
		Code: "configuration-not-in-force",
		Text: "the configuration on disk is not in force: " + config.Brief(err),
		Hint: "sidemirror config check",
	}}
	var owners []uint32
	if uid, found := portowner.Proxy(); found {
		owners = append(owners, uid)
	}
	good, lastErr := lastGood.Load(f.source(), owners...)
	if lastErr == nil && useSockets(ctx, good) == nil {
		return inForce{good, true, wrong}, nil
	}
	none := config.Default()
	none.Listen = f.source().Listen(err)
	if _, err := none.MirrorURL(); err != nil {
		none.Listen = config.Default().Listen
	}
	if err := useSockets(ctx, none); err != nil {
		return inForce{}, err
	}
	return inForce{none, false, wrong}, nil
}

// onlyWhatIsThere returns what a plan found on the host, without what it asks for: it was made for the
// default configuration, which is not the host's.
func onlyWhatIsThere(plan hostconfig.Plan) hostconfig.Plan {
	refused := plan.Refused
	plan = plan.Only(func(hostconfig.Change) bool { return false })
	plan.Engines = slices.Clone(plan.Engines)
	for i, e := range plan.Engines {
		e.Files = slices.DeleteFunc(slices.Clone(e.Files), func(file engine.File) bool { return file.State != engine.InPlace })
		e.Problems = slices.DeleteFunc(slices.Clone(e.Problems), func(p *problem.Problem) bool { return slices.Contains(refused, p) })
		plan.Engines[i] = e
	}
	return plan
}
