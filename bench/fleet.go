package main

import (
	"context"

	"golang.org/x/sys/unix"
)

// fleet is several servers. Each one that has an upstream has its own.
type fleet struct {
	servers   map[string]*server
	upstreams map[string]*upstream
}

// fleet starts the servers called names, all with the same images.
func (b *bench) fleet(ctx context.Context, images []*image, names ...string) (*fleet, error) {
	f := &fleet{servers: map[string]*server{}, upstreams: map[string]*upstream{}}
	for _, name := range names {
		var from *upstream
		if name != nginxStatic && name != registry {
			u, err := newUpstream()
			if err != nil {
				f.stop()
				return nil, err
			}
			u.add(images...)
			f.upstreams[name] = u
			from = u
		}
		s, err := b.start(ctx, name, from, images...)
		if err != nil {
			f.stop()
			return nil, err
		}
		f.servers[name] = s
	}
	return f, nil
}

func (f *fleet) stop() {
	for _, s := range f.servers {
		s.stop()
	}
	for _, u := range f.upstreams {
		u.close()
	}
}

// warm fetches content from all servers twice, the second time from what they store, and checks its
// digest. Then it waits until the disk has written everything.
func (f *fleet) warm(ctx context.Context, kind string, want *blob) error {
	for range 2 {
		for _, s := range f.servers {
			if err := s.fetch(ctx, s.path(kind, want.digest), want); err != nil {
				return err
			}
		}
	}
	unix.Sync()
	return nil
}
