// Package lazyregexp compiles regular expressions when they are first used. A compiled expression
// with a counted repetition takes up to 100 KB, and a daemon never uses most of those that are
// linked into it.
package lazyregexp

import (
	"os"
	"regexp"
	"strings"
	"sync"
)

// inTest is whether this is the binary of a test. Asking the package testing would link it in.
var inTest = len(os.Args) > 0 && strings.HasSuffix(os.Args[0], ".test")

// New returns a function that compiles expr when it is first called, and returns the result. It
// panics then if expr is not valid; in tests New itself does, so that each test of a package finds
// every expression that is not.
func New(expr string) func() *regexp.Regexp {
	compile := func() *regexp.Regexp { return regexp.MustCompile(expr) }
	if inTest {
		compiled := compile()
		return func() *regexp.Regexp { return compiled }
	}
	return sync.OnceValue(compile)
}
