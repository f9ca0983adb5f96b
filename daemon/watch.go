package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/sirupsen/logrus"

	"github.com/sidemirror/sidemirror/daemon/config"
)

// quiet is how long nothing has to change before changes are told: an editor makes
// several of one.
const quiet = 250 * time.Millisecond

// watcher tells of changes of files, be it that one is written, replaced, removed,
// made, or that a symbolic link on the way to it leads elsewhere (a ConfigMap is
// exchanged so). It watches folders: a watch of a file ends with the file.
type watcher struct {
	log     *logrus.Logger
	fs      *fsnotify.Watcher
	changed chan struct{} // one for all that has changed since it was last received from

	mu    sync.Mutex
	names map[string]bool // full names whose change matters; with a slash at the end all below
}

// newWatcher starts nothing yet: see run.
func newWatcher(log *logrus.Logger) (*watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("asking the kernel for changes of files: %w", err)
	}
	return &watcher{log: log, fs: w, changed: make(chan struct{}, 1)}, nil
}

// run gathers changes until ctx is done. Nothing runs while nothing changes.
func (w *watcher) run(ctx context.Context) {
	defer w.fs.Close()
	tell := time.NewTimer(quiet)
	tell.Stop()
	defer tell.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.fs.Events:
			if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
				_ = w.fs.Remove(e.Name) // it may be a folder of ours, and another one soon
			}
			if w.concerns(e.Name) {
				tell.Reset(quiet)
			}
		case err := <-w.fs.Errors: // events may have been lost
			w.log.WithError(err).Debug("looking at the files again")
			tell.Reset(quiet)
		case <-tell.C:
			select {
			case w.changed <- struct{}{}:
			default: // it has not been received yet, and stands for this too
			}
		}
	}
}

func (w *watcher) concerns(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names[name] || w.names[filepath.Dir(name)+"/"]
}

// follow makes w tell of what can change where paths, and those alone, lead to. A path with
// a slash at its end stands for all that is in that folder. Absolute links start at
// root. What changed in a folder before it was watched is not told: more says that
// there is one that was not watched before. The error is for what cannot be
// watched; the rest is.
func (w *watcher) follow(root string, paths ...string) (more bool, err error) {
	// A folder that comes or goes while we look is one to look at again.
	for range 8 {
		added, gone, faults := w.watchFolders(w.resolve(root, paths))
		more, err = more || added, errors.Join(faults[:min(len(faults), 3)]...)
		if !added && !gone {
			break
		}
	}
	return more, err
}

// resolve takes note of the names that matter, and answers with their folders.
func (w *watcher) resolve(root string, paths []string) (folders map[string]bool) {
	names, folders := make(map[string]bool), make(map[string]bool)
	for _, path := range paths {
		path, all := strings.CutSuffix(path, "/")
		steps := stepsOf(root, path)
		for _, step := range steps {
			names[step] = true
			folders[filepath.Dir(step)] = true
		}
		last := steps[len(steps)-1]
		if info, err := os.Lstat(last); all && err == nil && info.IsDir() {
			names[last+"/"] = true
			folders[last] = true
		}
	}
	for folder := range folders {
		names[folder] = true // that it goes, or is another one
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names = names
	return folders
}

func (w *watcher) watchFolders(folders map[string]bool) (added, gone bool, faults []error) {
	watched := make(map[string]bool)
	for _, folder := range w.fs.WatchList() {
		if watched[folder] = folders[folder]; !folders[folder] {
			_ = w.fs.Remove(folder) // gone by itself, if it is not there
		}
	}
	for folder := range folders {
		if watched[folder] {
			continue
		}
		switch err := w.fs.Add(folder); {
		case err == nil:
			added = true
		case errors.Is(err, fs.ErrNotExist):
			gone = true
		default:
			faults = append(faults, fmt.Errorf("watching %s: %w", folder, err))
		}
	}
	return added, gone, faults
}

// maxLinks is the kernel's own bound (path_resolution(7)).
const maxLinks = 40

// stepsOf are the full names by whose change path may lead elsewhere: each symbolic
// link on the way, and the file, or the first part of its path that is not there. Their
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

// firstMissing is path where its folder exists, else the part of it that would have
// to be made first.
func firstMissing(path string) string {
	for {
		folder := filepath.Dir(path)
		if info, err := os.Stat(folder); err == nil && info.IsDir() || folder == path {
			return path
		}
		path = folder
	}
}

// watchFile sends on changed when the configuration file says something else than
// content, which it said when it was read last. Where the kernel lets us watch
// nothing, SIGHUP remains.
func watchFile(ctx context.Context, log *logrus.Logger, path, content string, changed chan<- struct{}) {
	w, err := newWatcher(log)
	if err != nil {
		log.WithError(err).Warn("changes of the configuration file will not be noticed; send SIGHUP")
		return
	}
	var running sync.WaitGroup
	running.Go(func() { w.run(ctx) })
	defer running.Wait()
	if path, err = filepath.Abs(path); err != nil {
		log.WithError(err).Warn("changes of the configuration file will not be noticed; send SIGHUP")
		return
	}
	for {
		// The first look is for what changed before there was a watch.
		if _, err := w.follow("/", path); err != nil {
			log.WithError(err).Warn("changes of the configuration file may not be noticed; send SIGHUP")
		}
		if now := glance(path); now != content {
			content = now
			select {
			case changed <- struct{}{}:
			default: // it will be read anyway
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-w.changed:
		}
	}
}

// glance is what the file says, or why it cannot be read.
func glance(path string) string {
	data, err := config.ReadFile(path)
	switch {
	case os.IsNotExist(err):
		return ""
	case err != nil:
		return err.Error()
	}
	return string(data)
}
