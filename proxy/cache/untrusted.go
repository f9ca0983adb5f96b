package cache

import (
	"context"
	"fmt"
	"io/fs"
)

// What only untrusted callers have asked for has a share of the cache, and goes first. A file's
// mode says whose it is: untrustedMode until a trusted caller asks for it.
const (
	untrustedMode  = 0o400
	untrustedShare = 10 // one part in so many
)

func isUntrusted(info fs.FileInfo) bool { return info.Mode().Perm()&0o200 == 0 }

// untrustedLimit returns how many bytes of content untrusted callers may have stored.
func (d *Dir) untrustedLimit() (int64, error) {
	if limit := d.limits.Load().MaxSize; limit > 0 {
		return limit / untrustedShare, nil
	}
	st, err := d.filesystem()
	return int64(st.Blocks) * st.Bsize / untrustedShare, err
}

// shortOfShare returns how many bytes of what untrusted callers have stored must go so that
// extra more, if they are for an untrusted caller, are within its share.
func (d *Dir) shortOfShare(extra int64, untrusted bool) (int64, error) {
	limit, err := d.untrustedLimit()
	if err != nil {
		return 0, err
	}
	used := d.usedUntrusted.Load()
	if untrusted {
		used += extra + d.pendingUntrusted.Load()
	}
	if used <= limit {
		return 0, nil
	}
	return used - int64(lowMark*float64(limit)), nil
}

// reserveShare makes sure that size more bytes are within the share of untrusted callers.
func (d *Dir) reserveShare(ctx context.Context, size int64) error {
	limit, err := d.untrustedLimit()
	if err != nil {
		return err
	}
	fits := func() bool { return d.usedUntrusted.Load()+d.pendingUntrusted.Load()+size <= limit }
	if fits() {
		return nil
	}
	if size <= limit {
		if _, _, err := d.makeRoom(ctx, size, true); err != nil {
			return err
		}
	}
	if !fits() {
		return fmt.Errorf("%d bytes more are not within the share of the cache that untrusted callers have", size)
	}
	return nil
}

// promote makes what an untrusted caller had fetched the trusted callers' own.
func (d *Dir) promote(name string, info fs.FileInfo) {
	if isUntrusted(info) && d.root.Chmod(name, fileMode) == nil {
		d.usedUntrusted.Add(-info.Size())
	}
}
