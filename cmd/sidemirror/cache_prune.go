package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/cache/inventory"
)

func newCachePruneCommand(f *cacheFlags) *cobra.Command {
	var olderThan, toSize string
	var dry bool
	cmd := &cobra.Command{
		Use:   "prune [--older-than AGE] [--to-size SIZE] [IMAGE[:TAG|@DIGEST]]…",
		Short: "Remove what was not used for a while, or what is over a size",
		Long: `Remove images, those used longest ago first. All conditions apply together:
--older-than leaves images that were used since, --to-size stops as soon as the cache
is no larger than that, and names leave all other images.

Content that several images share stays as long as one of them does. Without names,
prune also removes content that belongs to no image.`,
		Example: `  sudo sidemirror cache prune --older-than 30d --dry-run
  sudo sidemirror cache prune --to-size 10GiB
  sudo sidemirror cache prune --older-than 1w ghcr.io/acme/app`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := selection(olderThan, toSize, args, time.Now())
			if err != nil {
				return misused(cmd, err)
			}
			return f.prune(cmd, s, dry)
		},
	}
	cmd.Flags().StringVar(&olderThan, "older-than", "", "remove what was not used for this `time`, such as 12h, 30d or 2w")
	cmd.Flags().StringVar(&toSize, "to-size", "", "remove until the cache has no more than this `size`, such as 10GiB")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "show what would be removed, and remove nothing")
	return cmd
}

func selection(olderThan, toSize string, args []string, now time.Time) (inventory.Selection, error) {
	var s inventory.Selection
	if olderThan == "" && toSize == "" && len(args) == 0 {
		return s, errors.New("prune needs --older-than, --to-size or image names")
	}
	if olderThan != "" {
		age, err := parseAge(olderThan)
		if err != nil {
			return s, fmt.Errorf("--older-than: %w", err)
		}
		s.UsedBefore = now.Add(-age)
	}
	if toSize != "" {
		size, err := config.ParseSize(toSize)
		if err != nil {
			return s, fmt.Errorf("--to-size: %w", err)
		}
		s.DownTo = max(int64(size), 1) // 0 would mean no limit
	}
	names, err := parseWanted(args)
	s.Match, s.In = anyOf(names), repositoriesOf(names)
	return s, err
}

func newCacheRemoveCommand(f *cacheFlags) *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:   "rm IMAGE[:TAG|@DIGEST]…",
		Short: "Remove images",
		Long: `Remove images. A name without tag and digest means all stored images of that
repository. Content that another image lists stays.`,
		Example: `  sudo sidemirror cache rm alpine:3.20 ghcr.io/acme/app`,
		Args:    someArgs("an image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := parseWanted(args)
			if err != nil {
				return misused(cmd, err)
			}
			return f.remove(cmd, names, dry)
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "show what would be removed, and remove nothing")
	return cmd
}

// remove removes the images that names mean. Names that mean no stored image are an error, after
// the others have been removed.
func (f *cacheFlags) remove(cmd *cobra.Command, names []wanted, dry bool) error {
	found := make([]bool, len(names))
	err := f.prune(cmd, inventory.Selection{In: repositoriesOf(names), Match: func(i inventory.Image) bool {
		chosen := false
		for n, w := range names {
			if w.is(i) {
				found[n], chosen = true, true
			}
		}
		return chosen
	}}, dry)
	if err != nil {
		return err
	}
	var missing []string
	for n, w := range names {
		if !found[n] {
			missing = append(missing, w.text)
		}
	}
	if len(missing) > 0 {
		return &problem.Problem{
			Code: "image-not-stored",
			Text: "nothing is stored of " + strings.Join(missing, ", "),
			Hint: "\"sidemirror cache ls\" lists what is stored",
		}
	}
	return nil
}

func (f *cacheFlags) prune(cmd *cobra.Command, s inventory.Selection, dry bool) error {
	d, err := f.open()
	if err != nil {
		return err
	}
	defer d.Close()
	p, err := inventory.Prune(cmd.Context(), d, s, dry)
	if p == nil {
		return fmt.Errorf("reading the cache: %w", explainStore(err))
	}
	if err != nil {
		return fmt.Errorf("removing from the cache: %w", explainStore(err))
	}
	if f.asJSON {
		return writeJSON(cmd.OutOrStdout(), struct {
			Images []imageJSON `json:"images"`
			Files  int         `json:"files"`
			Bytes  int64       `json:"bytes"`
			DryRun bool        `json:"dry_run"`
		}{imagesJSON(p.Images), p.Files, p.Freed, dry})
	}
	return writePruned(cmd.OutOrStdout(), p, dry, time.Now())
}

func writePruned(w io.Writer, p *inventory.Pruned, dry bool, now time.Time) error {
	removed, freed := "removed", "freed"
	if dry {
		removed, freed = "would remove", "would free"
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, i := range p.Images {
		fmt.Fprintf(tw, "%s\t%s\t%s\tused %s\n", removed, printable(i.Name()), bytesText(i.Size), agoText(i.Used, now))
	}
	if len(p.Loose) > 0 {
		fmt.Fprintf(tw, "%s\t%s that belong to no image\n", removed, several(len(p.Loose), "file"))
	}
	fmt.Fprintf(tw, "%s %s in %s\n", freed, bytesText(p.Freed), several(p.Files, "file"))
	return tw.Flush()
}
