package boot

import (
	"os"
	"strings"
)

// suites are those to test with: trixie, or those that $SIDEMIRROR_TEST_SUITES
// names, as "bookworm trixie sid".
func suites() []suite {
	names := strings.Fields(os.Getenv("SIDEMIRROR_TEST_SUITES"))
	if len(names) == 0 {
		return []suite{trixie}
	}
	found := make([]suite, 0, len(names))
	for _, name := range names {
		found = append(found, suite(name))
	}
	return found
}
