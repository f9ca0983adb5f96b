package blocks

import "strings"

// Manual returns the blocks without filling in a manual page's section EXAMPLES.
func Manual(document, text string) []Block {
	var (
		found    []Block
		lines    []string
		examples bool
		begun    int // the line on which the block began, 0 outside of one
	)
	for i, line := range strings.Split(text, "\n") {
		switch {
		case strings.HasPrefix(line, ".SH "):
			examples = strings.HasPrefix(strings.Trim(line[4:], `"`), "EXAMPLE")
		case !examples:
		case line == ".nf" || line == ".EX":
			begun, lines = i+2, nil
		case (line == ".fi" || line == ".EE") && begun != 0:
			found = append(found, Block{Document: document, Line: begun, Text: dedent(lines)})
			begun = 0
		case begun != 0 && !strings.HasPrefix(line, "."):
			lines = append(lines, unescape.Replace(line))
		}
	}
	return found
}

// unescape reads what the manual pages here use of troff.
var unescape = strings.NewReplacer(`\-`, "-", `\e`, `\`, `\&`, "", `\(aq`, "'", `\(dq`, `"`, `\(ga`, "`", `\(ti`, "~", `\(ha`, "^", `\fB`, "", `\fI`, "", `\fR`, "", `\fP`, "")
