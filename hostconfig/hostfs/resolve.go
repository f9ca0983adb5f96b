package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strings"

	"github.com/sidemirror/sidemirror/internal/problem"
)

const maxLinks = 40 // as the kernel's own limit, path_resolution(7)

// Resolve follows the symbolic links in name and returns the path that it stands for. Parts that
// do not exist at the end of the path are left as they are. A link that points to nothing is
// refused, since writing through it would make a file where no person expects one.
func (h *Host) Resolve(name string) (string, error) {
	h.asked[name] = true
	return h.Follow(name)
}

// Follow is [Host.Resolve] for a path whose change means nothing: [Host.Seen] leaves it out.
func (h *Host) Follow(name string) (string, error) {
	rest := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
	at, links := "/", 0
	// While rest is at least floor long, its first part comes from a link's target.
	floor := math.MaxInt
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if at == "/" && h.dir != "/" {
				return "", &problem.Problem{Code: "link-leaves-root", Path: name, Text: "symbolic link that leaves " + h.dir, Hint: "make it point inside"}
			}
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		info, err := h.root.Lstat(local(next))
		switch {
		case errors.Is(err, fs.ErrNotExist) && len(rest) >= floor:
			return "", &problem.Problem{Code: "link-dangling", Path: name, Text: "symbolic link to " + problem.QuotePath(next) + ", which does not exist",
				Hint: "create the file or remove the link"}
		case errors.Is(err, fs.ErrNotExist):
			return path.Join(append([]string{next}, rest...)...), nil
		case err != nil:
			return "", Explain(name, "looking it up", err)
		case info.Mode()&fs.ModeSymlink == 0:
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", &problem.Problem{Code: "link-loop", Path: name, Text: "loop of symbolic links", Hint: "remove one of them"}
		}
		target, err := h.root.Readlink(local(next))
		if err != nil {
			return "", Explain(name, "looking it up", err)
		}
		if path.IsAbs(target) {
			at = "/"
		}
		floor = min(floor, len(rest))
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
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
	h.asked[folder+"/"] = true
	real, err := h.Resolve(folder)
	if err != nil {
		return nil, err
	}
	d, err := h.root.Open(local(real))
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
func (h *Host) IsDir(name string) bool {
	info, ok := h.stat(name)
	return ok && info.IsDir()
}

// IsFile reports whether name is a regular file, itself or through links inside the tree.
func (h *Host) IsFile(name string) bool {
	info, ok := h.stat(name)
	return ok && info.Mode().IsRegular()
}

func (h *Host) stat(name string) (fs.FileInfo, bool) {
	real, err := h.Resolve(name)
	if err != nil {
		return nil, false
	}
	info, err := h.root.Lstat(local(real))
	return info, err == nil
}

// Lstat returns what is at name itself, links above it followed inside the tree.
func (h *Host) Lstat(name string) (fs.FileInfo, error) {
	info, err := h.root.Lstat(local(name))
	if err != nil {
		return nil, fmt.Errorf("looking at %s: %w", problem.QuotePath(name), err)
	}
	return info, nil
}
