package main

import (
	"strings"
	"unicode/utf8"
)

// bullet begins an item of a list in a help text.
const bullet = "  - "

// wrapText sets a help text in lines of at most width columns. Empty lines separate paragraphs. A
// paragraph whose lines begin with bullets is a list; one that begins with two blanks stays as it
// is, so that it can be copied.
func wrapText(text string, width int) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString("\n")
		}
		for _, part := range paragraphParts(paragraph) {
			switch {
			case strings.HasPrefix(part, bullet):
				part = hang(bullet, strings.Repeat(" ", len(bullet)), strings.TrimPrefix(part, bullet), width)
			case !strings.HasPrefix(part, "  "):
				part = hang("", "", part, width)
			}
			b.WriteString(part + "\n")
		}
	}
	return b.String()
}

// paragraphParts returns the items of a list, or the whole paragraph.
func paragraphParts(paragraph string) []string {
	if !strings.HasPrefix(paragraph, bullet) {
		return []string{paragraph}
	}
	items := strings.Split(paragraph, "\n"+bullet)
	for i := range items[1:] {
		items[i+1] = bullet + items[i+1]
	}
	return items
}

// hang fills lines of at most width columns with the words of text. The first line begins with
// first, the others with rest. A word that is longer than a line gets one of its own.
func hang(first, rest, text string, width int) string {
	var b strings.Builder
	b.WriteString(first)
	at, fresh := utf8.RuneCountInString(first), true
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case fresh:
		case at+1+n > width:
			b.WriteString("\n" + rest)
			at = utf8.RuneCountInString(rest)
		default:
			b.WriteString(" ")
			at++
		}
		b.WriteString(word)
		at, fresh = at+n, false
	}
	return b.String()
}
