package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

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
		Short: "Show, prune, verify or remove what is stored",
		Long: `Show, prune, verify or remove what the daemon has stored. The daemon may be running:
it finishes what it is sending, and fetches removed content again when an engine
asks for it.`,
		RunE: runGroup,
	}
	cmd.PersistentFlags().StringVar(&f.dir, "dir", "", "use the cache in this `folder` (default: cache.dir of the configuration)")
	cmd.PersistentFlags().BoolVar(&f.asJSON, "json", false, "print JSON, for programs")
	cmd.AddCommand(newCacheListCommand(f), newCachePruneCommand(f), newCacheVerifyCommand(f), newCacheRemoveCommand(f))
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

func newCacheListCommand(f *cacheFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "ls [IMAGE[:TAG|@DIGEST]]…",
		Aliases: []string{"list"},
		Short:   "List stored images",
		Long: `List the stored images: their size on disk, when they were last used, where they came
from, and whether they are complete. Content that several images share counts for
each of them, and once in the sum. The time of the last use is exact to ten minutes.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := parseWanted(args)
			if err != nil {
				return misused(cmd, err)
			}
			d, err := f.open()
			if err != nil {
				return err
			}
			defer d.Close()
			inv, err := inventory.Read(cmd.Context(), d)
			if err != nil {
				return fmt.Errorf("reading the cache: %w", explainStore(err))
			}
			if match := anyOf(names); match != nil {
				var chosen []inventory.Image
				for _, i := range inv.Images {
					if match(i) {
						chosen = append(chosen, i)
					}
				}
				inv.Images = chosen
			}
			if f.asJSON {
				return writeJSON(cmd.OutOrStdout(), inventoryJSON(inv))
			}
			return writeInventory(cmd.OutOrStdout(), inv, time.Now())
		},
	}
}

func writeInventory(w io.Writer, inv *inventory.Inventory, now time.Time) error {
	if len(inv.Images) > 0 {
		tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
		fmt.Fprintln(tw, "IMAGE\tPLATFORM\tSIZE\tUSED\tFROM\tSTORED")
		for _, i := range inv.Images {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", printable(i.Name()), printable(platformsText(i)), bytesText(i.Size), agoText(i.Used, now), printable(i.Upstream), keptText(i))
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	text := several(len(inv.Images), "image") + "; the cache has " + bytesText(inv.Bytes)
	if inv.Loose > 0 {
		text += ", of which " + bytesText(inv.Loose) + " belong to no image"
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

func platformsText(i inventory.Image) string {
	var all []string
	for _, p := range i.Platforms {
		if p.Name != "" {
			all = append(all, p.Name)
		}
	}
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, ",")
}

// keptText says which parts of an image are stored.
func keptText(i inventory.Image) string {
	if len(i.Platforms) == 0 {
		return "index only"
	}
	missing := 0
	for _, p := range i.Platforms {
		if len(p.Missing) == 1 && p.Missing[0] == p.Digest {
			return "name only"
		}
		missing += len(p.Missing)
	}
	if missing == 0 {
		return "complete"
	}
	return several(missing, "part") + " missing"
}

// imageJSON is an image in JSON output (docs/json.md).
type imageJSON struct {
	Name      string         `json:"name"`
	Digest    digest.Digest  `json:"digest"`
	MediaType string         `json:"media_type"`
	Upstream  string         `json:"upstream"`
	LastUsed  *time.Time     `json:"last_used"` // null if its manifest is not stored
	Bytes     int64          `json:"bytes"`
	Whole     bool           `json:"complete"`
	Platforms []platformJSON `json:"platforms"`
}

type platformJSON struct {
	Name    string          `json:"name"`
	Digest  digest.Digest   `json:"digest"`
	Bytes   int64           `json:"bytes"`
	Missing []digest.Digest `json:"missing"`
}

func imagesJSON(images []inventory.Image) []imageJSON {
	all := []imageJSON{}
	for _, i := range images {
		shown := imageJSON{i.Name(), i.Digest, i.MediaType, i.Upstream, nil, i.Size, i.Whole(), []platformJSON{}}
		if !i.Used.IsZero() {
			shown.LastUsed = &i.Used
		}
		for _, p := range i.Platforms {
			shown.Platforms = append(shown.Platforms, platformJSON{p.Name, p.Digest, p.Size, append([]digest.Digest{}, p.Missing...)})
		}
		all = append(all, shown)
	}
	return all
}

func inventoryJSON(inv *inventory.Inventory) any {
	return struct {
		Images []imageJSON `json:"images"`
		Bytes  int64       `json:"bytes"`
		Loose  int64       `json:"loose_bytes"`
	}{imagesJSON(inv.Images), inv.Bytes, inv.Loose}
}
