package daemon

import (
	"errors"
	"io/fs"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/proxy"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// readHandedOver returns what the watching service hands over.
func readHandedOver(c *config.Config) (handover.Handover, error) {
	if c.Engine.HandoverDir == "" {
		return handover.Handover{}, nil
	}
	return handover.Read(c.Engine.HandoverDir)
}

// readHandover returns what the watching service hands over, and makes a change of it lead to a
// reload. A file that cannot be believed hands over nothing: engines then fall back to a registry that
// sidemirror does not reach.
func (d *daemon) readHandover(c *config.Config) handover.Handover {
	d.follow(c)
	found, err := readHandedOver(c)
	if err != nil {
		d.log.WithError(err).Warn("sidemirror does not know how the engines reach registries")
	}
	return found
}

// adopted returns the registries of found as the proxy wants them.
func adopted(found handover.Handover) map[string]proxy.Adopted {
	all := make(map[string]proxy.Adopted, len(found.Registries))
	for name, r := range found.Registries {
		a := proxy.Adopted{PlainHTTP: r.PlainHTTP, Adopted: upstream.Adopted{CA: r.CA, SkipVerify: r.SkipVerify}}
		for _, pair := range r.Client {
			a.Clients = append(a.Clients, upstream.KeyPair(pair))
		}
		all[name] = a
	}
	return all
}

// readEngines reads which engines the watching service has found, for the page. The file is
// small, and in memory.
func (d *daemon) readEngines() {
	c := d.shown.Load()
	if c == nil || c.Engine.HandoverDir == "" {
		return
	}
	engines, err := handover.ReadEngines(c.Engine.HandoverDir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.log.WithError(err).Debug("the page does not know the engines")
		}
		d.engines.Store(nil)
		return
	}
	d.engines.Store(&engines)
}

// repairs returns how often the watching service has repaired the files of each engine.
func (d *daemon) repairs() map[string]int64 {
	engines := d.engines.Load()
	if engines == nil {
		return nil
	}
	all := map[string]int64{}
	for _, e := range *engines {
		all[e.Name] += e.Repairs
	}
	return all
}
