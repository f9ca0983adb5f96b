package hostfs

import (
	"path"

	"golang.org/x/sys/unix"
)

// Public reports whether every user of the host may read a file. It reports false for one that is
// missing. The mode of the tree's own root, which may be a temporary folder, does not count.
func (h *Host) Public(name string) bool {
	real, err := h.Follow(name)
	if err != nil {
		return false
	}
	for at, need := real, uint32(unix.S_IROTH); at != "/"; at, need = path.Dir(at), unix.S_IXOTH {
		f, err := h.walk(at, false)
		if err != nil {
			return false
		}
		mode := f.stat.Mode
		missing := f.node == nil
		f.close()
		if missing || mode&need == 0 {
			return false
		}
	}
	return true
}
