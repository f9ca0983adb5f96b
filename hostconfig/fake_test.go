package hostconfig

import (
	"context"
	"encoding/json"
	"os"
	"syscall"
	"testing"
)

// fakeDockerd takes daemon.json as dockerd does: a key that is gone changes nothing.
type fakeDockerd struct {
	host     *Host
	deaf     error
	mirrors  []string
	store    string
	version  string
	reloads  int
	restarts int

	pull func(ctx context.Context, q ask, reference string) error
}

func (*fakeDockerd) Running(context.Context) bool { return true }

func (d *fakeDockerd) Reload(context.Context) error {
	if d.deaf != nil {
		return d.deaf
	}
	d.reloads++
	data, err := os.ReadFile(d.host.path(dockerJSON))
	if err != nil {
		return nil
	}
	var conf struct {
		Mirrors *[]string `json:"registry-mirrors"`
	}
	if json.Unmarshal(data, &conf) != nil || conf.Mirrors == nil {
		return nil
	}
	d.mirrors = nil
	for _, m := range *conf.Mirrors {
		d.mirrors = append(d.mirrors, m+"/")
	}
	return nil
}

func (d *fakeDockerd) Info(context.Context) (info, error) {
	return info{mirrors: d.mirrors, store: d.store, version: d.version}, nil
}

func (d *fakeDockerd) Pull(ctx context.Context, q ask, reference string) error {
	if d.pull == nil {
		return errNotAsked
	}
	return d.pull(ctx, q, reference)
}

func (d *fakeDockerd) Restart(context.Context) error {
	d.restarts++
	return nil
}

// failing is a step that fails one operation on one path.
func failing(op, path string, err error) func(string, string) error {
	return func(o, p string) error {
		if o == op && p == path {
			return err
		}
		return nil
	}
}

func inode(t *testing.T, name string) uint64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}
