package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// report holds what has been measured so far.
type report struct {
	verdicts []verdict
	tables   []table
}

// verdict is one row of the numbers to reach.
type verdict struct {
	figure, want, got string
	reached           bool
}

// table is one figure for each server. Its note says how it was measured.
type table struct {
	title, note string
	head        []string
	rows        [][]string
}

func (r *report) judge(reached bool, figure, want, got string) {
	r.verdicts = append(r.verdicts, verdict{figure, want, got, reached})
}

// missed returns an error if a number was not reached.
func (r *report) missed() error {
	n := 0
	for _, v := range r.verdicts {
		if !v.reached {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d numbers were not reached", n, len(r.verdicts))
}

// summary returns the verdicts as a table.
func (r *report) summary() table {
	t := table{title: "Numbers to reach", head: []string{"figure", "at least as good as", "reached", ""}}
	for _, v := range r.verdicts {
		t.rows = append(t.rows, []string{v.figure, v.want, v.got, map[bool]string{true: "pass", false: "FAIL"}[v.reached]})
	}
	return t
}

// write writes t with aligned columns. If heading, such as "##", is not empty, it writes Markdown,
// which has the note too.
func (t table) write(w io.Writer, heading string) {
	markdown := heading != ""
	widths := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	edge, between := "", "  "
	if markdown {
		edge, between = "|", " | "
		fmt.Fprintf(w, "%s %s\n\n", heading, t.title)
		if t.note != "" {
			fmt.Fprintf(w, "%s\n\n", wrap(t.note))
		}
	} else {
		fmt.Fprintf(w, "\n%s\n", t.title)
	}
	line := func(row []string) {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		}
		text := strings.Join(cells, between)
		if markdown {
			text = edge + " " + text + " " + edge
		}
		fmt.Fprintln(w, strings.TrimRight(text, " "))
	}
	line(t.head)
	if markdown {
		rule := make([]string, len(widths))
		for i, n := range widths {
			rule[i] = strings.Repeat("-", n)
		}
		line(rule)
	}
	for _, row := range t.rows {
		line(row)
	}
	if markdown {
		fmt.Fprintln(w)
	}
}

// markdown writes the whole report.
func (r *report) markdown(w io.Writer, facts [][2]string, when time.Time, took time.Duration) {
	fmt.Fprintf(w, `# Results

`+"`make bench`"+` wrote this file on %s in %.0f s. [README.md](README.md) says what is
compared, and why it is fair. Figures of one run can be compared with each other, those of two
machines cannot.

`, when.UTC().Format("2006-01-02 15:04 UTC"), took.Seconds())
	machine := table{title: "The machine", head: []string{"what", "which"}}
	for _, f := range facts {
		machine.rows = append(machine.rows, f[:])
	}
	r.all(w, "##", machine)
}

// section writes the report as a section of the results.
func (r *report) section(w io.Writer, title string, facts [][2]string, when time.Time, took time.Duration) {
	fmt.Fprintf(w, "## %s\n\n", title)
	text := fmt.Sprintf("`make bench-growth` wrote this section on %s in %.0f s.", when.UTC().Format("2006-01-02 15:04 UTC"), took.Seconds())
	for _, f := range facts {
		text += fmt.Sprintf(" %s: %s.", f[0], f[1])
	}
	fmt.Fprintf(w, "%s\n\n", wrap(text))
	r.all(w, "###")
}

// all writes the numbers to reach, why some are not reached, and the tables, as Markdown.
func (r *report) all(w io.Writer, heading string, more ...table) {
	r.summary().write(w, heading)
	if why := r.why(); why != "" {
		fmt.Fprintf(w, "%s\n", why)
	}
	for _, t := range append(r.tables, more...) {
		t.write(w, heading)
	}
}

// wrap breaks text into lines of at most 100 characters, as prose in this repository has them.
func wrap(text string) string {
	const width = 100
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == 0:
		case column+1+n > width:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}

// median returns the middle of values, or the mean of the two middle ones. It does not reorder values.
func median[T ~int | ~int64 | ~float64](values []T) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// samples holds the value of each round, by server.
type samples[T cmp.Ordered] map[string][]T

func (s samples[T]) add(name string, v T) { s[name] = append(s[name], v) }

func millis(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/mib) }
