package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	// width is that of prose.
	width = 100

	// mostPrinted bounds how many of the texts of a code are on the page.
	mostPrinted = 6
)

// page adds to each entry of the source what the program prints with its code.
func page(text string, found codes) (string, error) {
	var out strings.Builder
	var wrong []error
	documented := map[string]bool{}
	head, sections, _ := strings.Cut(text, "\n## ")
	out.WriteString(head)
	out.WriteString("\n<!-- Made from the program by \"make troubleshooting\". Edit " + source + " instead. -->\n")
	for section := range strings.SplitSeq(sections, "\n## ") {
		parts := strings.Split(section, "\n### ")
		out.WriteString("\n## " + strings.TrimSpace(parts[0]) + "\n")
		slices.SortFunc(parts[1:], strings.Compare)
		for _, entry := range parts[1:] {
			code, body, err := entryOf(entry)
			switch {
			case err != nil:
				wrong = append(wrong, err)
				continue
			case documented[code]:
				wrong = append(wrong, fmt.Errorf("%s has two entries", code))
			case found[code] == nil:
				wrong = append(wrong, fmt.Errorf("%s has an entry, and the program prints no such code", code))
			}
			documented[code] = true
			out.WriteString("\n### `" + code + "`\n\n" + body + printed(found[code]))
		}
	}
	for _, code := range slices.Sorted(maps.Keys(found)) {
		if !documented[code] {
			wrong = append(wrong, fmt.Errorf("%s (in %s) has no entry in %s: write what it means and what to do", code, found[code][0].at, source))
		}
	}
	return out.String(), errors.Join(wrong...)
}

// entryOf splits an entry: a code, a line that is its title, and an explanation.
func entryOf(entry string) (code, body string, err error) {
	first, rest, _ := strings.Cut(entry, "\n")
	title, explanation, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	code = strings.Trim(first, "`")
	if first != "`"+code+"`" || !strings.HasSuffix(title, ".") || strings.TrimSpace(explanation) == "" {
		return "", "", fmt.Errorf("the entry %q needs a code, a title that is a sentence, and an explanation", first)
	}
	return code, "**" + title + "**\n" + strings.TrimSpace(explanation) + "\n", nil
}

// printed lists what the program prints with a code.
func printed(uses []use) string {
	var lines []string
	for _, u := range uses {
		if u.text == "" && u.hint == "" {
			continue
		}
		line := ""
		if u.text != "" {
			line = "“" + plain(u.text) + "”"
		}
		if u.hint != "" {
			line += "\nhint: " + plain(u.hint)
		}
		if line = strings.TrimSpace(line); !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	var out strings.Builder
	if len(lines) > 0 {
		out.WriteString("\n")
	}
	for _, line := range lines[:min(len(lines), mostPrinted)] {
		mark := "- "
		for part := range strings.SplitSeq(line, "\n") {
			out.WriteString(wrap(mark, part))
			mark = "  "
		}
	}
	return out.String()
}

// markup escapes what Markdown takes for markup.
var markup = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "<", `\<`, "[", `\[`)

// plain makes a text of the program's one line without markup.
func plain(text string) string {
	return markup.Replace(strings.Join(strings.Fields(text), " "))
}

// wrap breaks a text into lines that begin with mark or, after the first, with blanks.
func wrap(mark, text string) string {
	var out strings.Builder
	line := mark
	for i, word := range strings.Fields(text) {
		if i > 0 && len([]rune(line))+1+len([]rune(word)) > width {
			out.WriteString(line + "\n")
			line = strings.Repeat(" ", len(mark)) + word
			continue
		}
		if i > 0 {
			line += " "
		}
		line += word
	}
	return out.String() + line + "\n"
}
