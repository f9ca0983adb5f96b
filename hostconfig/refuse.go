package hostconfig

import (
	"bytes"
)

// lineAt returns the number of the line that offset lies in.
func lineAt(b []byte, offset int) int {
	return 1 + bytes.Count(b[:min(max(offset, 0), len(b))], []byte("\n"))
}
