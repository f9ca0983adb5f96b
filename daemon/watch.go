package daemon

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long changes are gathered: an editor makes several of one.
const quiet = 250 * time.Millisecond

// watch sends on changed when the configuration file says something else than it did
// when it was read last, be it that it was written, replaced, removed, made, or that a
// symbolic link on the way to it leads elsewhere (a ConfigMap is exchanged so). Where the
// kernel lets us watch nothing, SIGHUP remains.
func (d *daemon) watch(ctx context.Context, path, content string, changed chan<- struct{}) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		d.log.WithError(err).Warn("changes of the configuration file will not be noticed; send SIGHUP")
		return
	}
	defer w.Close()
	// Not a ticker: nothing runs while nothing changes. The first look is for what
	// changed before there was a watch.
	look := time.NewTimer(0)
	defer look.Stop()
	waiting := true
	soon := func() {
		if !waiting {
			look.Reset(quiet)
			waiting = true
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.Events:
			if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
				_ = w.Remove(e.Name) // it may be a folder of ours, and another one soon
			}
			soon()
		case err := <-w.Errors: // events may have been lost
			d.log.WithError(err).Debug("looking at the configuration file again")
			soon()
		case <-look.C:
			waiting = false
			if err := follow(w, path); err != nil {
				d.log.WithError(err).Warn("changes of the configuration file may not be noticed; send SIGHUP")
			}
			if now := glance(path); now != content {
				content = now
				select {
				case changed <- struct{}{}:
				default: // it will be read anyway
				}
			}
		}
	}
}

// glance is what the file says, or why it cannot be read.
func glance(path string) string {
	data, err := readFile(path)
	switch {
	case os.IsNotExist(err):
		return ""
	case err != nil:
		return err.Error()
	}
	return string(data)
}

// follow makes w watch the folders in which a change can change what path leads to.
func follow(w *fsnotify.Watcher, path string) error {
	folders := foldersOf(path)
	for _, old := range w.WatchList() {
		if !slices.Contains(folders, old) {
			_ = w.Remove(old) // gone by itself, if it is not there
		}
	}
	for _, folder := range folders {
		if err := w.Add(folder); err != nil {
			return fmt.Errorf("watching %s: %w", folder, err)
		}
	}
	return nil
}

// maxLinks is the kernel's own bound (path_resolution(7)).
const maxLinks = 40

// foldersOf lists the real folders of the file at path and of each symbolic link
// on the way to it. Where one does not exist yet it is the nearest that does.
func foldersOf(path string) []string {
	var folders []string
	add := func(folder string) {
		if !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
	}
	rest := path
	for range maxLinks {
		link, target := firstLink(rest)
		if link == "" {
			add(existing(filepath.Dir(rest)))
			break
		}
		add(filepath.Dir(link))
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link), target)
		}
		rest = filepath.Join(target, rest[len(link):])
	}
	return folders
}

// firstLink is the first part of path that is a symbolic link, and where it leads.
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

// existing is folder, or the nearest above it that exists.
func existing(folder string) string {
	for {
		if info, err := os.Stat(folder); err == nil && info.IsDir() || folder == filepath.Dir(folder) {
			return folder
		}
		folder = filepath.Dir(folder)
	}
}
