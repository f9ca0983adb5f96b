package filewatch

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// pollInterval is how often files are read if the kernel does not report their changes.
	pollInterval = 5 * time.Second

	// maxContents limits what is read of a file, in bytes.
	maxContents = 1 << 20
)

// Contents reports when files contain something else. A file that is written again with the
// same contents is not reported.
type Contents struct {
	watcher *Watcher // nil if the kernel reports no changes
	changed chan struct{}

	mu     sync.Mutex
	states map[string]string // what each file contained when it was last looked at
	poll   bool
}

// NewContents returns a Contents that follows no files yet.
func NewContents() *Contents {
	c := &Contents{changed: make(chan struct{}, 1)}
	w, err := New()
	if err != nil {
		c.poll = true
		return c
	}
	c.watcher = w
	return c
}

// Close releases what NewContents acquired. Call it when Run has returned.
func (c *Contents) Close() {
	if c.watcher != nil {
		c.watcher.Close()
	}
}

// Changed receives one value for all that changed since the last one was received.
func (c *Contents) Changed() <-chan struct{} { return c.changed }

// Follow replaces the files that are followed. What a file contains at this moment is what
// later contents are compared with, or, if it was followed already, what it contained when it
// was last looked at. Call Follow before reading a file, so that no change is missed.
func (c *Contents) Follow(paths ...string) {
	states := make(map[string]string, len(paths))
	for i, path := range paths {
		if absolute, err := filepath.Abs(path); err == nil {
			paths[i] = absolute
		}
		states[paths[i]] = ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watcher != nil {
		_, err := c.watcher.Follow("/", paths...)
		c.poll = err != nil
	}
	for path := range states {
		if known, followed := c.states[path]; followed {
			states[path] = known
		} else {
			states[path] = stateOf(path)
		}
	}
	c.states = states
}

// Run compares until ctx is done. If the kernel does not report changes, it reads the files
// every few seconds.
func (c *Contents) Run(ctx context.Context) {
	var watcher <-chan struct{}
	var running sync.WaitGroup
	defer running.Wait()
	if c.watcher != nil {
		watcher = c.watcher.Changed()
		running.Go(func() { c.watcher.Run(ctx) })
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-watcher:
			c.compare()
		case <-tick.C:
			if c.polls() {
				c.compare()
			}
		}
	}
}

func (c *Contents) polls() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.poll
}

func (c *Contents) compare() {
	c.mu.Lock()
	defer c.mu.Unlock()
	differ := false
	paths := make([]string, 0, len(c.states))
	for path := range c.states {
		paths = append(paths, path)
	}
	if c.watcher != nil {
		// Links may lead elsewhere now, and folders may be others.
		_, err := c.watcher.Follow("/", paths...)
		c.poll = err != nil
	}
	for _, path := range paths {
		if now := stateOf(path); now != c.states[path] {
			c.states[path] = now
			differ = true
		}
	}
	if differ {
		signal(c.changed)
	}
}

// stateOf returns a text that differs if the file contains something else or cannot be read
// for another reason.
func stateOf(path string) string {
	// Without O_NONBLOCK, opening a named pipe waits for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	if !info.Mode().IsRegular() {
		return info.Mode().Type().String()
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, io.LimitReader(f, maxContents)); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %x", info.Size(), hash.Sum(nil))
}
