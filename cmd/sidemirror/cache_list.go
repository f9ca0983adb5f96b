package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/proxy/cache/inventory"
)

func newCacheListCommand(f *cacheFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "ls [IMAGE[:TAG|@DIGEST]]…",
		Aliases: []string{"list"},
		Short:   "List stored images",
		Long: `List the stored images: their size on disk, when they were last used, where they came
from, and whether they are complete. Content that several images share counts for
each of them, and once in the sum. The time of the last use is exact to ten minutes.
With names the command reads no other repository, and the sum is that of the images
listed.`,
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
			var l imageWriter = &textList{w: cmd.OutOrStdout(), now: time.Now()}
			if f.asJSON {
				l = &jsonList{w: cmd.OutOrStdout()}
			}
			var writeErr error
			visit := func(i inventory.Image) error {
				if match := anyOf(names); match == nil || match(i) {
					writeErr = l.image(i)
				}
				return writeErr
			}
			var t inventory.Totals
			if len(names) > 0 {
				t, err = inventory.ListIn(cmd.Context(), d, repositoriesOf(names), visit)
			} else {
				t, err = inventory.List(cmd.Context(), d, visit)
			}
			switch {
			case writeErr != nil:
				return writeErr
			case err != nil:
				return fmt.Errorf("reading the cache: %w", explainStore(err))
			}
			return l.end(t, len(names) > 0)
		},
	}
}

// imageWriter prints images as they are read, so that a list takes no memory.
type imageWriter interface {
	image(inventory.Image) error
	end(t inventory.Totals, named bool) error
}

// textList prints images for people, in columns.
type textList struct {
	w      io.Writer
	now    time.Time
	rows   [][]string
	widths []int
	images int
}

// alignedRows is how many rows are read before they are printed. The columns of the next ones are
// as wide or wider.
const alignedRows = 500

func (l *textList) image(i inventory.Image) error {
	if l.images == 0 {
		l.rows = append(l.rows, []string{"IMAGE", "PLATFORM", "SIZE", "USED", "FROM", "STORED"})
	}
	l.images++
	l.rows = append(l.rows, []string{
		printable(i.Name()), printable(platformsText(i)), bytesText(i.Size), agoText(i.Used, l.now), printable(i.Upstream), keptText(i),
	})
	if len(l.rows) < alignedRows {
		return nil
	}
	return l.flush()
}

// flush prints the rows that were read.
func (l *textList) flush() error {
	for _, row := range l.rows {
		for i, cell := range row {
			if i == len(l.widths) {
				l.widths = append(l.widths, 0)
			}
			l.widths[i] = max(l.widths[i], utf8.RuneCountInString(cell))
		}
	}
	const gap = 3
	var b bytes.Buffer
	for _, row := range l.rows {
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", l.widths[i]-utf8.RuneCountInString(cell)+gap))
			}
		}
		b.WriteByte('\n')
	}
	l.rows = l.rows[:0]
	_, err := l.w.Write(b.Bytes())
	return err
}

func (l *textList) end(t inventory.Totals, named bool) error {
	if err := l.flush(); err != nil {
		return err
	}
	text := several(l.images, "image")
	if named {
		text += ", " + bytesText(t.Bytes)
	} else {
		text += "; the cache has " + bytesText(t.Bytes)
	}
	if t.Loose > 0 {
		text += ", of which " + bytesText(t.Loose) + " belong to no image"
	}
	_, err := fmt.Fprintln(l.w, text)
	return err
}

// jsonList prints images as JSON (docs/json.md).
type jsonList struct {
	w      io.Writer
	images int
}

func (l *jsonList) image(i inventory.Image) error {
	text, err := indented(imageOf(i), "    ")
	if err != nil {
		return err
	}
	before := ",\n    "
	if l.images == 0 {
		before = "{\n  \"images\": [\n    "
	}
	l.images++
	_, err = fmt.Fprintf(l.w, "%s%s", before, text)
	return err
}

func (l *jsonList) end(t inventory.Totals, _ bool) error {
	text := "\n  ]"
	if l.images == 0 {
		text = "{\n  \"images\": []"
	}
	_, err := fmt.Fprintf(l.w, "%s,\n  \"bytes\": %d,\n  \"loose_bytes\": %d\n}\n", text, t.Bytes, t.Loose)
	return err
}

// indented returns v as JSON whose lines, except for the first, begin with prefix.
func indented(v any, prefix string) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetIndent(prefix, "  ")
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSpace(b.String()), err
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

func imageOf(i inventory.Image) imageJSON {
	shown := imageJSON{i.Name(), i.Digest, i.MediaType, i.Upstream, nil, i.Size, i.Whole(), []platformJSON{}}
	if !i.Used.IsZero() {
		shown.LastUsed = &i.Used
	}
	for _, p := range i.Platforms {
		shown.Platforms = append(shown.Platforms, platformJSON{p.Name, p.Digest, p.Size, append([]digest.Digest{}, p.Missing...)})
	}
	return shown
}

func imagesJSON(images []inventory.Image) []imageJSON {
	all := []imageJSON{}
	for _, i := range images {
		all = append(all, imageOf(i))
	}
	return all
}
