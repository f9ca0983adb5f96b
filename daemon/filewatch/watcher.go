// Package filewatch reports changes of files: when they are written, replaced, removed or
// created, and when a symbolic link on the way to them leads elsewhere.
package filewatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quietPeriod is how long nothing may change before a change is reported: an editor makes
// several changes when it saves one file.
const quietPeriod = 250 * time.Millisecond

// Watcher reports changes of a set of paths. It watches folders, since a watch of a file ends
// with the file; a ConfigMap, for example, is replaced by an exchange of links.
type Watcher struct {
	fs      *fsnotify.Watcher
	changed chan struct{}

	mu    sync.Mutex
	names map[string]bool // paths whose change counts; with a slash at the end, all inside
}

// New returns a Watcher that follows nothing yet, and reports nothing before Run is called.
func New() (*Watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("asking the kernel for changes of files: %w; see fs.inotify.max_user_instances", err)
	}
	return &Watcher{fs: w, changed: make(chan struct{}, 1)}, nil
}

// Changed receives one value for all that changed since the last one was received.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Close releases what New acquired. Call it when Run has returned.
func (w *Watcher) Close() { _ = w.fs.Close() }

// Run collects changes until ctx is done. It uses no time while nothing changes.
func (w *Watcher) Run(ctx context.Context) {
	report := time.NewTimer(quietPeriod)
	report.Stop()
	defer report.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.fs.Events:
			if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
				_ = w.fs.Remove(e.Name) // it may be a folder that is watched, and soon another one
			}
			if w.concerns(e.Name) {
				report.Reset(quietPeriod)
			}
		case err := <-w.fs.Errors:
			if err != nil { // events may have been lost
				report.Reset(quietPeriod)
			}
		case <-report.C:
			signal(w.changed)
		}
	}
}

// signal sends a value unless one is waiting, which then stands for both.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (w *Watcher) concerns(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names[name] || w.names[filepath.Dir(name)+"/"]
}

// Follow replaces the paths that w reports changes of. A path with a slash at its end stands
// for everything in that folder. Absolute links start at root. Follow does not report what
// changed in a folder before it was watched: more says that there is a folder that was not
// watched before. The error names what cannot be watched; everything else is.
func (w *Watcher) Follow(root string, paths ...string) (more bool, err error) {
	// If a folder comes or goes during this, look again.
	for range 8 {
		added, gone, faults := w.watchFolders(w.resolve(root, paths))
		more, err = more || added, errors.Join(faults[:min(len(faults), 3)]...)
		if !added && !gone {
			break
		}
	}
	return more, err
}

// resolve notes the names that count, and returns their folders.
func (w *Watcher) resolve(root string, paths []string) (folders map[string]bool) {
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
		names[folder] = true // that it is removed or replaced
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names = names
	return folders
}

func (w *Watcher) watchFolders(folders map[string]bool) (added, gone bool, faults []error) {
	watched := make(map[string]bool)
	for _, folder := range w.fs.WatchList() {
		if watched[folder] = folders[folder]; !folders[folder] {
			_ = w.fs.Remove(folder) // if it does not exist, its watch is gone already
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
		case errors.Is(err, fs.ErrPermission):
			// As /root and /home in a service's sandbox, where their files cannot be read either.
		default:
			faults = append(faults, fmt.Errorf("watching %s: %w", folder, err))
		}
	}
	return added, gone, faults
}
