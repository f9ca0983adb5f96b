// Testreport reads what go test -json prints, of one run or of several after one
// another, and tells a person what came of it: a line for each package, all that a
// failed test said, why a test was skipped, and at the end how many tests and
// subtests passed, failed and were skipped.
//
// It exits with 1 where something failed, where no test ran, and, with -noskip,
// where a test was skipped.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	noSkip := flag.Bool("noskip", false, "count a skipped test as a failure of the run")
	flag.Parse()
	r := newReport(os.Stdout)
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
	if !r.summary(*noSkip) {
		os.Exit(1)
	}
}

// event is a line of go test -json (go doc test2json, go help buildjson).
type event struct {
	Action, Package, Test, Output, ImportPath, FailedBuild string
	Elapsed                                                float64
}

// report is what has been seen so far.
type report struct {
	out                     io.Writer
	passed, failed, skipped int
	broken                  []string                    // packages that failed, or did not build
	running                 map[string]int              // package → its tests that have come to an end
	said                    map[[2]string]*bytes.Buffer // package and test → its output
}

func newReport(out io.Writer) *report {
	return &report{out: out, running: map[string]int{}, said: map[[2]string]*bytes.Buffer{}}
}

// read takes the events of in. A line that is none is printed as it is: go says
// there what keeps it from testing at all.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil && e.Action != "" {
			r.take(e)
		} else if len(line) > 0 {
			fmt.Fprintf(r.out, "%s", line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the events of go test: %w", err)
		}
	}
}

func (r *report) take(e event) {
	key := [2]string{e.Package, e.Test}
	switch e.Action {
	case "start":
		r.running[e.Package] = 0
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		if strings.HasPrefix(e.Output, "=== ") || e.Test == "" && strings.HasPrefix(e.Output, "FAIL") {
			return // what runs, and go test's own verdict, which endPackage gives
		}
		if r.said[key] == nil {
			r.said[key] = new(bytes.Buffer)
		}
		r.said[key].WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
			return
		}
		r.endTest(e)
		delete(r.said, key)
	}
}

// endTest counts a test that came to an end. What a failed or a skipped one said is shown.
func (r *report) endTest(e event) {
	r.running[e.Package]++
	switch e.Action {
	case "pass":
		r.passed++
		return
	case "fail":
		r.failed++
	case "skip":
		r.skipped++
	}
	if said := r.said[[2]string{e.Package, e.Test}]; said != nil {
		fmt.Fprint(r.out, said)
	}
}

// endPackage prints a package's own line, and with a failed one what was said
// outside of tests (a panic, a race, a goroutine left behind) and by tests that
// never came to an end.
func (r *report) endPackage(e event) {
	if e.Action == "fail" {
		r.broken = append(r.broken, e.Package)
		for key, said := range r.said {
			if key[0] == e.Package && e.FailedBuild == "" {
				fmt.Fprint(r.out, said)
			}
		}
	}
	for key := range r.said {
		if key[0] == e.Package {
			delete(r.said, key)
		}
	}
	tests := r.running[e.Package]
	delete(r.running, e.Package)
	switch {
	case e.FailedBuild != "":
		fmt.Fprintf(r.out, "FAIL\t%s [build failed]\n", e.Package)
	case e.Action == "fail":
		fmt.Fprintf(r.out, "FAIL\t%s\t%.2fs\n", e.Package, e.Elapsed)
	case tests > 0:
		fmt.Fprintf(r.out, "ok\t%s\t%.2fs\t%d tests\n", e.Package, e.Elapsed, tests)
	}
}

// summary prints the closing lines and tells whether all is well.
func (r *report) summary(noSkip bool) bool {
	// A package that began and never ended: go test was killed.
	for name := range r.running {
		r.broken = append(r.broken, name+" (cut off)")
	}
	ok := true
	if len(r.broken) > 0 {
		fmt.Fprintln(r.out, "failed:", strings.Join(r.broken, " "))
		ok = false
	}
	if r.passed+r.failed+r.skipped == 0 {
		fmt.Fprintln(r.out, "no test ran")
		ok = false
	}
	if noSkip && r.skipped > 0 {
		fmt.Fprintln(r.out, "skipped tests are not allowed in this run")
		ok = false
	}
	if ok = ok && r.failed == 0; ok {
		fmt.Fprintln(r.out, "PASS")
	} else {
		fmt.Fprintln(r.out, "FAIL")
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return ok
}
