package daemon

import (
	"os"
	"strings"
	"testing"
)

func TestMemoryLimitFollowsTheCgroup(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for name, tt := range map[string]struct {
		files map[string]string // below the cgroup root
		want  int64
	}{
		"no limit":           {nil, gib},
		"max":                {map[string]string{"/a/b/memory.max": "max\n", "/a/b/memory.high": "max\n"}, gib},
		"limit of the unit":  {map[string]string{"/a/b/memory.max": "400000000\n"}, 300000000},
		"lower high":         {map[string]string{"/a/b/memory.max": "400000000\n", "/a/b/memory.high": "200000000\n"}, 150000000},
		"limit of the slice": {map[string]string{"/a/memory.max": "100000000\n", "/a/b/memory.max": "400000000\n"}, 75000000},
		"large limit":        {map[string]string{"/a/b/memory.max": "999999999999\n"}, gib},
		"no number":          {map[string]string{"/a/b/memory.max": "x\n"}, gib},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for name, text := range tt.files {
				if err := os.MkdirAll(root+name[:strings.LastIndex(name, "/")], 0o700); err != nil {
					t.Fatal(err)
				}
				replaceFile(t, root+name, text)
			}
			membership := root + "/membership"
			replaceFile(t, membership, "0::/a/b\n")
			if got := memoryLimit(membership, root); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
			if got := memoryLimit(root+"/none", root); got != defaultMemory {
				t.Errorf("without a cgroup: %d", got)
			}
		})
	}
}
