package main

import (
	"errors"
	"os"
	"slices"
	"strings"
)

// RESULTS.md ends with sections that other targets than "make bench" write.
const (
	growthTitle  = "Cost as work grows"
	enginesTitle = "Real engines"
	bootedTitle  = "Booted systems"
)

// sectionTitles are in the order of the file.
var sectionTitles = []string{growthTitle, enginesTitle, bootedTitle}

// results is a file of results in its parts.
type results struct {
	first    string            // what "make bench" writes
	sections map[string]string // by their titles, with these
}

// readResults reads a file of results. One that does not exist is empty.
func readResults(name string) (results, error) {
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return results{}, err
	}
	return parseResults(string(text)), nil
}

func parseResults(text string) results {
	r := results{sections: make(map[string]string)}
	title, part := "", ""
	end := func() {
		if title == "" {
			r.first = part
		} else {
			r.sections[title] = part
		}
	}
	for line := range strings.Lines(text) {
		if next, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok && slices.Contains(sectionTitles, next) {
			end()
			title, part = next, ""
		}
		part += line
	}
	end()
	return r
}

// write writes the parts in their order, with an empty line between each two.
func (r results) write(name string) error {
	var parts []string
	for _, part := range append([]string{r.first}, r.inOrder()...) {
		if part = strings.Trim(part, "\n"); part != "" {
			parts = append(parts, part+"\n")
		}
	}
	return os.WriteFile(name, []byte(strings.Join(parts, "\n")), 0o644)
}

func (r results) inOrder() []string {
	var parts []string
	for _, title := range sectionTitles {
		parts = append(parts, r.sections[title])
	}
	return parts
}

// replaceFirst replaces what "make bench" wrote in a file of results.
func replaceFirst(name string, text []byte) error {
	r, err := readResults(name)
	if err != nil {
		return err
	}
	r.first = string(text)
	return r.write(name)
}

// replaceSection replaces the section in a file of results. text starts with its heading.
func replaceSection(name, title string, text []byte) error {
	r, err := readResults(name)
	if err != nil {
		return err
	}
	r.sections[title] = string(text)
	return r.write(name)
}
