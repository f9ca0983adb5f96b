package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// Resolve follows the symbolic links in name and returns the path that it stands for. Parts that
// do not exist at the end of the path are left as they are. A link that points to nothing is
// refused, since writing through it would make a file where no person expects one; so is a link that
// another user than root could have put there.
func (h *Host) Resolve(name string) (string, error) {
	h.asked[name] = true
	return h.Follow(name)
}

// Follow is [Host.Resolve] for a path whose change means nothing: [Host.Seen] leaves it out.
func (h *Host) Follow(name string) (string, error) {
	f, err := h.walk(name, true)
	if err != nil {
		return "", err
	}
	defer f.close()
	return f.real, nil
}

// Readlink returns the target of name if name itself is a symbolic link, or "".
func (h *Host) Readlink(name string) string {
	target, err := h.root.Readlink(local(name))
	if err != nil {
		return ""
	}
	return target
}

// Names lists a folder, sorted. A missing folder has none.
func (h *Host) Names(folder string) ([]fs.DirEntry, error) {
	h.asked[folder] = true
	h.asked[folder+"/"] = true
	f, err := h.walk(folder, true)
	if err != nil {
		return nil, err
	}
	defer f.close()
	d, err := f.open(unix.O_RDONLY | unix.O_DIRECTORY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, Explain(folder, "listing it", err)
	}
	defer d.Close()
	return readNames(d, folder)
}

// Glob lists the files that match a pattern, as filepath.Glob does.
func (h *Host) Glob(pattern string) ([]string, error) {
	folders := []string{path.Dir(pattern)}
	if strings.ContainsAny(folders[0], `*?[\`) {
		var err error
		if folders, err = h.Glob(folders[0]); err != nil {
			return nil, err
		}
	}
	var found []string
	for _, folder := range folders {
		if !h.IsDir(folder) {
			h.asked[folder+"/"] = true
			continue
		}
		if base := path.Base(pattern); !strings.ContainsAny(base, `*?[\`) { // no need to list a folder of many
			if name := path.Join(folder, base); h.kind(name) != 0 || h.Readlink(name) != "" {
				found = append(found, name)
			}
			continue
		}
		list, err := h.Names(folder)
		if err != nil {
			return nil, err
		}
		for _, item := range list {
			if ok, err := path.Match(path.Base(pattern), item.Name()); ok && err == nil {
				found = append(found, path.Join(folder, item.Name()))
			}
		}
	}
	return found, nil
}

// IsDir reports whether name is a folder, itself or through links inside the tree.
func (h *Host) IsDir(name string) bool { return h.kind(name) == unix.S_IFDIR }

// IsFile reports whether name is a regular file, itself or through links inside the tree.
func (h *Host) IsFile(name string) bool { return h.kind(name) == unix.S_IFREG }

// kind returns the type of file that name stands for, or 0.
func (h *Host) kind(name string) uint32 {
	h.asked[name] = true
	f, err := h.walk(name, true)
	if err != nil {
		return 0
	}
	defer f.close()
	return f.stat.Mode & unix.S_IFMT
}

// Lstat returns what is at name itself, links above it followed inside the tree.
func (h *Host) Lstat(name string) (fs.FileInfo, error) {
	info, err := h.root.Lstat(local(name))
	if err != nil {
		return nil, fmt.Errorf("looking at %s: %w", problem.QuotePath(name), err)
	}
	return info, nil
}
