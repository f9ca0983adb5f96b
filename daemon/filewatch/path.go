package filewatch

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// maxLinks is the kernel's own limit (path_resolution(7)).
const maxLinks = 40

// stepsOf returns the full names whose change may make path lead elsewhere: each symbolic
// link on the way, and the file, or the first part of its path that does not exist. Their
// folders exist.
func stepsOf(root, path string) []string {
	var steps []string
	rest := path
	for range maxLinks {
		link, target := firstLink(rest)
		if link == "" {
			return append(steps, firstMissing(rest))
		}
		if slices.Contains(steps, link) {
			return steps
		}
		steps = append(steps, link)
		if filepath.IsAbs(target) {
			target = filepath.Join(root, target)
		} else {
			target = filepath.Join(filepath.Dir(link), target)
		}
		rest = filepath.Join(target, rest[len(link):])
	}
	return steps
}

// firstLink returns the first part of path that is a symbolic link, and its target.
func firstLink(path string) (link, target string) {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != filepath.Separator {
			continue
		}
		info, err := os.Lstat(path[:i])
		if err != nil {
			return "", ""
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path[:i])
			if err != nil {
				return "", ""
			}
			return path[:i], target
		}
	}
	return "", ""
}

// firstMissing returns path if its folder exists, or else the part of it that would have to
// be created first.
func firstMissing(path string) string {
	for {
		folder := filepath.Dir(path)
		if info, err := os.Stat(folder); err == nil && info.IsDir() || folder == path {
			return path
		}
		path = folder
	}
}
