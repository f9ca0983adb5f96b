package unitfile

import "strings"

// setting is one line of a unit's [Service] section.
type setting struct{ key, value string }

// settings returns those of the [Service] section.
func settings(data []byte) []setting {
	var list []setting
	section := ""
	for _, line := range logicalLines(data, "#;") {
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			section = line
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok && section == "[Service]" {
			list = append(list, setting{strings.TrimSpace(key), strings.TrimSpace(value)})
		}
	}
	return list
}

// logicalLines returns the lines without comments and empty ones. A backslash at the end of a line
// continues it in the next one.
func logicalLines(data []byte, comments string) []string {
	var lines []string
	var pending string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		if text := strings.TrimSpace(line); text != "" && strings.ContainsRune(comments, rune(text[0])) {
			continue // inside a continued line too
		}
		if before, ok := strings.CutSuffix(line, `\`); ok {
			pending += before + " "
			continue
		}
		if line = strings.TrimSpace(pending + line); line != "" {
			lines = append(lines, line)
		}
		pending = ""
	}
	if pending = strings.TrimSpace(pending); pending != "" {
		lines = append(lines, pending)
	}
	return lines
}

// split splits a line into words. Quotes keep white space; a backslash takes the next byte as it is.
func split(line string) []string {
	var words []string
	var word strings.Builder
	quote, inWord := byte(0), false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && i+1 < len(line) && quote != '\'':
			i++
			inWord = true
			word.WriteByte(line[i])
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteByte(c)
		case c == '"' || c == '\'':
			quote, inWord = c, true
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
			}
			word.Reset()
			inWord = false
		default:
			inWord = true
			word.WriteByte(c)
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}
