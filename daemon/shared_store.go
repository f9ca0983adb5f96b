package daemon

import (
	"context"

	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/observe"
	"github.com/sidemirror/sidemirror/proxy/shared"
)

// openShared returns the store that c shares with other hosts; nil if there is none, or if it cannot be
// used. Then missing says why, and pulls go on without it.
func openShared(c *config.Config, out outbound, log *logrus.Logger) (store *shared.Store, missing *problem.Problem) {
	bucket, ok := c.Cache.Shared.Bucket()
	if !ok {
		return nil, nil
	}
	store, err := shared.New(sharedConfig(c, bucket, out))
	if err != nil {
		missing = &problem.Problem{Code: "shared-store-unusable", Text: "nothing is shared", Err: err, Hint: "correct [cache.shared]: sidemirror cache shared check"}
		if log != nil {
			log.WithError(err).WithField("hint", missing.Hint).Error("pulls go on without the shared store")
		}
		return nil, missing
	}
	return store, nil
}

func sharedConfig(c *config.Config, bucket config.Bucket, out outbound) shared.Config {
	s := shared.Config{
		Endpoint: bucket.Endpoint, Bucket: bucket.Name, Prefix: bucket.Prefix, Region: bucket.Region,
		Credentials: c.Cache.Shared.Credentials, CA: c.Cache.Shared.CA, Proxy: out.forRequest,
	}
	if c.Cache.Shared.Upload {
		s.Queue = int64(c.Cache.Shared.Queue)
	}
	return s
}

// CheckShared finds out whether the store that c shares with other hosts can be used. ok is false if
// there is none.
func CheckShared(ctx context.Context, c *config.Config) (steps []shared.Step, ok bool, err error) {
	bucket, ok := c.Cache.Shared.Bucket()
	if !ok {
		return nil, false, nil
	}
	found, _ := readHandedOver(c) // a user who may not read it reaches the store in the usual way
	store, err := shared.New(sharedConfig(c, bucket, chooseOutbound(c, environmentProxy(), found.Proxy)))
	if err != nil {
		return nil, true, err
	}
	defer store.Close()
	return store.Check(ctx), true, nil
}

// sharing is a service that may have a shared store.
type sharing interface {
	SharedProblems() []*problem.Problem
	SharedStats() (observe.Shared, bool)
}

// sharedProblems returns what is wrong with the shared store.
func (d *daemon) sharedProblems() []*problem.Problem {
	if s, ok := d.handler.get().service.(sharing); ok {
		return s.SharedProblems()
	}
	return nil
}

// sharedStats returns what happened between this host and the shared store; ok is false if there is
// none.
func (d *daemon) sharedStats() (stats observe.Shared, ok bool) {
	g := d.handler.get()
	if g == nil {
		return stats, false
	}
	if s, isSharing := g.service.(sharing); isSharing {
		return s.SharedStats()
	}
	return stats, false
}
