package blocks

import (
	"html"
	"regexp"
)

var preformatted = regexp.MustCompile(`(?s)<pre><code>(.*?)</code></pre>`)

// Page returns the preformatted blocks of an HTML page.
func Page(document, text string) []Block {
	var found []Block
	for _, m := range preformatted.FindAllStringSubmatch(text, -1) {
		found = append(found, Block{Document: document, Text: html.UnescapeString(m[1]) + "\n"})
	}
	return found
}
