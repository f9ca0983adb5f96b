package daemon

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// defaultMemory is the soft limit of the heap if no cgroup has one.
	defaultMemory = 1 << 30

	// memoryShare is the part of a cgroup's limit that the heap may use: the kernel counts
	// sockets and the page cache there too.
	memoryShare = 0.75

	// garbage is by how many percent of what is in use the heap may grow before the collector
	// runs. Little is in use, so that the default of 100 would have it run a hundred times a
	// second while many manifests are asked for.
	garbage = 300
)

// limitMemory sets the soft limit of the heap, so that the garbage collector works harder before
// the kernel kills the process. GOMEMLIMIT and GOGC in the environment have precedence.
func limitMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit("/proc/self/cgroup", "/sys/fs/cgroup"))
	}
}

// memoryLimit derives the limit from the lowest memory.high or memory.max of the process's
// cgroup and those above it (cgroup v2).
func memoryLimit(membership, root string) int64 {
	lowest := int64(math.MaxInt64)
	data, err := os.ReadFile(membership)
	if err != nil {
		return defaultMemory
	}
	for line := range strings.Lines(string(data)) {
		group, unified := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !unified {
			continue
		}
		for group = filepath.Clean("/" + group); ; group = filepath.Dir(group) {
			for _, name := range []string{"memory.high", "memory.max"} {
				text, err := os.ReadFile(filepath.Join(root, group, name))
				if err != nil {
					continue
				}
				if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
					lowest = min(lowest, n)
				}
			}
			if group == "/" {
				break
			}
		}
	}
	if lowest == math.MaxInt64 {
		return defaultMemory
	}
	return min(int64(float64(lowest)*memoryShare), defaultMemory)
}
