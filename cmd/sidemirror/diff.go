package main

import (
	"fmt"
	"strings"
)

// around is how many unchanged lines are shown around those that change.
const around = 3

// diff writes a unified diff of one file with a single hunk, because sidemirror edits a file in one
// place. nil is a file that does not exist.
func (p *printer) diff(path string, before, after []byte) {
	name := func(data []byte) string {
		if data == nil {
			return "/dev/null"
		}
		return printable(path)
	}
	p.paint(bold, "--- "+name(before))
	p.paint(bold, "+++ "+name(after))
	old, now := lines(before), lines(after)
	head := 0
	for head < len(old) && head < len(now) && old[head] == now[head] {
		head++
	}
	tail := 0
	for tail < len(old)-head && tail < len(now)-head && old[len(old)-1-tail] == now[len(now)-1-tail] {
		tail++
	}
	from, rest := max(head-around, 0), min(tail, around)
	if len(old)+len(now) > 0 {
		p.paint(cyan, fmt.Sprintf("@@ -%s +%s @@", span(from, len(old)-tail+rest), span(from, len(now)-tail+rest)))
	}
	p.lines("", " ", old[from:head])
	p.lines(red, "-", old[head:len(old)-tail])
	p.lines(green, "+", now[head:len(now)-tail])
	p.lines("", " ", old[len(old)-tail:len(old)-tail+rest])
}

// span formats a range of lines as diff does: an empty one stands after a line.
func span(from, to int) string {
	if to == from {
		return fmt.Sprintf("%d,0", from)
	}
	return fmt.Sprintf("%d,%d", from+1, to-from)
}

// lines splits data into lines, each with its newline if it has one.
func lines(data []byte) []string {
	list := strings.SplitAfter(string(data), "\n")
	if list[len(list)-1] == "" {
		list = list[:len(list)-1]
	}
	return list
}

func (p *printer) lines(color, sign string, list []string) {
	for _, line := range list {
		text, ended := strings.CutSuffix(line, "\n")
		if text = sign + printable(text); p.color && color != "" {
			p.paint(color, text)
		} else {
			p.printf("%s\n", text)
		}
		if !ended {
			p.printf("\\ No newline at end of file\n")
		}
	}
}
