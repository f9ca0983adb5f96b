package cache

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/sidemirror/sidemirror/internal/extent"
)

// The list of a partial blob is a text, so that a person can read it:
//
//	extents 1 SIZE BOOT     SIZE -1: unknown
//	START END               bytes that are written, in the order of writing
//	synced                  the bytes before this line are on disk, not only in the kernel's memory
//
// Lines are appended after the bytes that they claim. A process that is killed leaves at most a
// last line without its end, which does not count. BOOT tells whether the machine has been started
// anew since: then only what is before the last "synced" counts.
const (
	listVersion = "extents 1"
	syncedLine  = "synced\n"

	// maxListSize bounds a list that is read, in bytes.
	maxListSize = 1 << 20

	// maxExtents is of how many extents a partial blob may be made, and spareExtents how many of
	// them are for what is fetched between those that readers asked for.
	maxExtents   = 8192
	spareExtents = 64
)

var errBadList = errors.New("the list of extents cannot be read")

// bootID returns a name for this run of the machine; "-" if the kernel does not tell.
var bootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if id := strings.TrimSpace(string(b)); err == nil && id != "" && !strings.ContainsAny(id, " \n") {
		return id
	}
	return "-"
})

// formatList returns the list of a set.
func formatList(size int64, boot string, present *extent.Set, synced bool) []byte {
	b := fmt.Appendf(nil, "%s %d %s\n", listVersion, size, boot)
	b = appendExtents(b, present)
	if synced {
		b = append(b, syncedLine...)
	}
	return b
}

func appendExtents(b []byte, s *extent.Set) []byte {
	for _, e := range s.All() {
		b = fmt.Appendf(b, "%d %d\n", e.Start, e.End)
	}
	return b
}

// parseList reads a list that was written in this run of the machine, named boot, or in another.
func parseList(b []byte, boot string) (size int64, present extent.Set, err error) {
	lines := bytes.SplitAfter(b, []byte("\n"))
	if last := len(lines) - 1; !bytes.HasSuffix(lines[last], []byte("\n")) {
		lines = lines[:last]
	}
	if len(lines) == 0 {
		return 0, present, errBadList
	}
	rest, ok := strings.CutPrefix(strings.TrimSuffix(string(lines[0]), "\n"), listVersion+" ")
	text, writtenIn, ok2 := strings.Cut(rest, " ")
	size, err = strconv.ParseInt(text, 10, 64)
	if !ok || !ok2 || err != nil || size < -1 {
		return 0, present, errBadList
	}
	same := writtenIn == boot && boot != "-"
	var fresh extent.Set // not known to be on disk
	for _, line := range lines[1:] {
		if string(line) == syncedLine {
			present = fresh.Clone()
			continue
		}
		e, ok := parseExtent(strings.TrimSuffix(string(line), "\n"), size)
		if !ok || fresh.Count() > maxExtents {
			return 0, extent.Set{}, errBadList
		}
		fresh.Add(e)
	}
	if same {
		present = fresh
	}
	return size, present, nil
}

func parseExtent(line string, size int64) (e extent.Extent, ok bool) {
	first, last, ok := strings.Cut(line, " ")
	start, err := strconv.ParseUint(first, 10, 63)
	end, err2 := strconv.ParseUint(last, 10, 63)
	e = extent.Extent{Start: int64(start), End: int64(end)}
	return e, ok && err == nil && err2 == nil && e.Len() > 0 && (size < 0 || e.End <= size)
}
