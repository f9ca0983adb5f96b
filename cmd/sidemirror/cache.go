package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/cache/inventory"
)

// cacheFlags are the flags that all cache commands have.
type cacheFlags struct {
	globals *globals
	dir     string
	asJSON  bool
}

func newCacheCommand(g *globals) *cobra.Command {
	f := &cacheFlags{globals: g}
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Show, prune, verify, remove or share what is stored",
		Long: `Show, prune, verify or remove what the daemon has stored. The daemon may be running:
it finishes what it is sending, and fetches removed content again when an engine
asks for it.`,
		RunE: runGroup,
	}
	cmd.PersistentFlags().StringVar(&f.dir, "dir", "", "use the cache in this `folder` (default: cache.dir of the configuration)")
	cmd.PersistentFlags().BoolVar(&f.asJSON, "json", false, "print JSON, for programs")
	cmd.AddCommand(newCacheListCommand(f), newCachePruneCommand(f), newCacheVerifyCommand(f), newCacheRemoveCommand(f), newCacheSharedCommand(f))
	return cmd
}

// open opens the cache that the flags or the configuration name.
func (f *cacheFlags) open() (*cache.Dir, error) {
	dir := f.dir
	if dir == "" {
		c, err := config.Load(f.globals.configPath, os.Environ())
		if err != nil {
			return nil, err
		}
		if dir = c.Cache.Dir; dir == "" {
			return nil, fmt.Errorf("the cache is off: cache.dir is \"\" in %s", c.File)
		}
	}
	return openCacheAt(dir)
}

// openCacheAt opens an existing cache. It creates none, so that a misspelt folder is an error.
func openCacheAt(dir string) (*cache.Dir, error) {
	_, err := os.Stat(filepath.Join(dir, "VERSION"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no cache in %s; either the daemon has not run with this cache.dir yet, or --dir names another folder", dir)
	case err != nil:
		return nil, explainStore(fmt.Errorf("opening the cache: %w", err))
	}
	d, err := cache.Open(dir, cache.Limits{})
	if err != nil {
		return nil, explainStore(err)
	}
	return d, nil
}

// wanted is an argument that names images.
type wanted struct {
	text       string
	repository cache.Repository
	tag        string // "" for any
	digest     digest.Digest
}

// parseWanted parses IMAGE[:TAG|@DIGEST], and completes names as docker does.
func parseWanted(args []string) ([]wanted, error) {
	var all []wanted
	for _, text := range args {
		named, err := reference.ParseNormalizedNamed(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not an image name: %w", text, err)
		}
		w := wanted{text: text, repository: cache.Repository{Registry: reference.Domain(named), Name: reference.Path(named)}}
		if t, ok := named.(reference.Tagged); ok {
			w.tag = t.Tag()
		}
		if d, ok := named.(reference.Digested); ok {
			w.digest = d.Digest()
		}
		all = append(all, w)
	}
	return all, nil
}

// repositoriesOf returns the repositories that names are in, each once.
func repositoriesOf(names []wanted) []cache.Repository {
	var all []cache.Repository
	for _, w := range names {
		if !slices.Contains(all, w.repository) {
			all = append(all, w.repository)
		}
	}
	return all
}

func (w wanted) is(i inventory.Image) bool {
	return i.Repository == w.repository && (w.tag == "" || i.Tag == w.tag) && (w.digest == "" || i.Digest == w.digest)
}

// anyOf returns a function that selects the images that one of names means. It returns nil, which
// selects all, if there are no names.
func anyOf(names []wanted) func(inventory.Image) bool {
	if len(names) == 0 {
		return nil
	}
	return func(i inventory.Image) bool {
		for _, w := range names {
			if w.is(i) {
				return true
			}
		}
		return false
	}
}
