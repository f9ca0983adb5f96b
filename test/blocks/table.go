package blocks

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Entry says what a test does with a block, or why it does nothing.
type Entry struct {
	// Begins is what the commands of the block begin with. Of several entries that match, the
	// longest holds. Of an exempt block it is the whole text.
	Begins string

	// Language, if set, makes the entry match all blocks whose fence names that language.
	Language string

	// Exempt is why the block is not run.
	Exempt string

	// On names the host that it is run on. Entries are run in the order of the table.
	On string

	// As is how: "" for a command that succeeds, "service" for one that runs until the end of the
	// test, "configuration" for an example that is pasted at the end of config.toml, "drop-in" for
	// one that is pasted into a drop-in of Unit.
	As string

	// Unit is the unit of a drop-in.
	Unit string

	// Before and After are scripts of root's around it. After shows that it did what the document
	// says.
	Before, After string

	// Types is what the reader types when the command asks.
	Types string

	// Code is the exit code.
	Code int

	// Sample means that a console shows output of another host: it is not compared.
	Sample bool
}

// Task is an entry with the blocks that it is about, of which all have the same commands.
type Task struct {
	Entry

	Blocks []Block
}

// Tasks gives each block its entry. The error lists blocks without an entry, and entries without
// a block: the documentation or the table must change then.
func Tasks(table []Entry, blocks []Block) ([]Task, error) {
	var (
		errs  []error
		tasks = make([][]Task, len(table))
	)
	for _, b := range blocks {
		i := match(table, b)
		if i < 0 {
			errs = append(errs, fmt.Errorf("%s:%d: a block that the table does not know:\n%s", b.Document, b.Line, b.Text))
			continue
		}
		same := slices.IndexFunc(tasks[i], func(t Task) bool { return t.Blocks[0].Commands() == b.Commands() })
		if same < 0 {
			tasks[i] = append(tasks[i], Task{Entry: table[i]})
			same = len(tasks[i]) - 1
		}
		tasks[i][same].Blocks = append(tasks[i][same].Blocks, b)
	}
	var all []Task
	for i, e := range table {
		switch {
		case len(tasks[i]) == 0:
			errs = append(errs, fmt.Errorf("no document has the block that begins with %q", e.Begins+e.Language))
		case (e.Exempt == "") == (e.On == ""):
			errs = append(errs, fmt.Errorf("the entry %q must name a host or a reason to be exempt", e.Begins))
		}
		all = append(all, tasks[i]...)
	}
	return all, errors.Join(errs...)
}

// match returns the index of the entry for a block, -1 if there is none.
func match(table []Entry, b Block) int {
	found, commands := -1, b.Commands()
	for i, e := range table {
		if e.Language != "" && e.Language == b.Language {
			return i
		}
		begins := strings.TrimSpace(e.Begins)
		if begins == "" || !strings.HasPrefix(commands, begins) || e.Exempt != "" && begins != commands {
			continue
		}
		if found < 0 || len(begins) > len(strings.TrimSpace(table[found].Begins)) {
			found = i
		}
	}
	return found
}
