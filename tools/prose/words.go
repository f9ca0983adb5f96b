package main

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxWidth is how many characters a line of prose may have.
const maxWidth = 100

// finding is one place that should be written in another way.
type finding struct {
	file   string
	number int
	text   string
}

func (f finding) String() string { return fmt.Sprintf("%s:%d: %s", f.file, f.number, f.text) }

// words are what nobody would say aloud, and what to write instead.
var words = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{word(`mend(s|ed|ing)?`), "fix, hint"},
	{word(`amiss`), "problem"},
	{word(`our part|our parts`), "sidemirror's entry"},
	{word(`nobody|somebody|no one|whoever`), "name the actor: no process, another program, the caller"},
	{word(`(is|are|was|were|be|been|being) told`), "is notified, is logged; or name who says it"},
	{word(`but for`), "except"},
	{word(`beside`), "next to, in addition to"},
	{word(`by itself|by themselves`), "automatically, alone"},
	{word(`(is|are|was|were|has|have|had) to be`), "must be, should be"},
	{word(`(goes|go|went|going) on to the regist(ry|ries)`), "falls back to the registry"},
	{word(`answers with`), "returns, or responds with"},
	{word(`strangers?`), "untrusted callers"},
	{word(`quarrels?|quarrel(s|led)? with`), "conflict"},
	{word(`not all is well`), "problems found"},
}

func word(pattern string) *regexp.Regexp { return regexp.MustCompile(`(?i)\b(` + pattern + `)\b`) }

// inverted matches a condition without "if": "Is it stopped, the engine …".
var inverted = regexp.MustCompile(`(^|[.:;] |// )(Is|Are|Was|Were|Does|Do|Did|Has|Have|Had|Should) (it|they|he|she|the|a|an|this|that|there|no|one|any|all|such|sidemirror|Docker|dockerd|containerd)\b[^.?]*, `)

// findings returns what is to be said of one line.
func (l line) findings(file string) []finding {
	var list []finding
	for _, w := range words {
		if found := w.pattern.FindString(l.text); found != "" {
			list = append(list, finding{file, l.number, fmt.Sprintf("%q: write %s", found, w.instead)})
		}
	}
	if found := inverted.FindString(l.text); found != "" && !strings.Contains(l.text, "?") {
		list = append(list, finding{file, l.number, fmt.Sprintf("%q: begin a condition with \"if\"", strings.TrimSpace(found))})
	}
	if !l.wide && utf8.RuneCountInString(l.text) > maxWidth {
		list = append(list, finding{file, l.number, fmt.Sprintf("%d characters wide; wrap prose at %d", utf8.RuneCountInString(l.text), maxWidth)})
	}
	return list
}
