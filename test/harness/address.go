package harness

import (
	"fmt"
	"testing"

	"github.com/sidemirror/sidemirror/test/process"
)

// FreeAddress returns a free 127.0.0.1:PORT, which no other test gets before tb ends.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	return fmt.Sprintf("127.0.0.1:%d", process.FreePort(tb))
}
