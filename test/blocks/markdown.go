package blocks

import (
	"regexp"
	"strings"
)

// fence opens or closes a code block. An indented one belongs to a list.
var fence = regexp.MustCompile("^ *(```+|~~~+) *([a-z-]*)$")

// Markdown returns the code blocks of a document in Markdown.
func Markdown(document, text string) []Block {
	var (
		found []Block
		lines []string
		open  string // the fence that opened the block
		block Block
	)
	for i, line := range strings.Split(text, "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case open == "" && m != nil:
			open, lines = m[1], nil
			block = Block{Document: document, Line: i + 2, Language: m[2]}
		case open != "" && m != nil && m[2] == "" && strings.HasPrefix(m[1], open):
			block.Text = dedent(lines)
			found = append(found, block)
			open = ""
		case open != "":
			lines = append(lines, line)
		}
	}
	return found
}
