package cache

import (
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

// promote makes what an untrusted caller had fetched the trusted callers' own.
func (d *Dir) promote(name string, info fs.FileInfo) {
	if isUntrusted(info) && d.root.Chmod(name, fileMode) == nil {
		s := &d.space
		s.mu.Lock()
		defer s.mu.Unlock()
		s.usedUntrusted = max(s.usedUntrusted-info.Size(), 0)
		if s.tally != nil {
			s.tally.untrusted -= info.Size()
		}
	}
}
