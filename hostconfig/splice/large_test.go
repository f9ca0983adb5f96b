package splice

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// An editor that takes more than linear time would not end here.
func TestLargeFilesAreEdited(t *testing.T) {
	var hosts strings.Builder
	hosts.WriteString(FileMark + "\n")
	for i := 0; hosts.Len() < maxTOML-200; i++ {
		fmt.Fprintf(&hosts, "%s\n# x\n[host.\"http://h%d\"]\n\n", tableMark, i)
		fmt.Fprintf(&hosts, "%s\n[host.\"http://i%d\"]\n\n", tableMark, i)
	}
	if r, err := RemoveHosts("f", []byte(hosts.String()), nil); err != nil || !r.Found {
		t.Errorf("hosts.toml: %v, found %v", err, r.Found)
	}
	list := strings.Repeat(`"http://127.0.0.1:305", "x", `, 1<<20/32)
	for _, e := range []encoding{{}, {mark: []byte("\xff\xfe"), order: littleEndian}} {
		data := slices.Concat(e.mark, e.encode(`{"registry-mirrors": [`+list+`"y"]}`))
		want := slices.Concat(e.mark, e.encode(`{"registry-mirrors": [`+strings.Repeat(`"x", `, 1<<20/32)+`"y"]}`))
		if r := RemoveMirror(data, []string{ourURL}, nil); string(r.Rest) != string(want) {
			t.Errorf("daemon.json of %d bytes became one of %d, want %d", len(data), len(r.Rest), len(want))
		}
	}
	out, err := SetConfigPath("f", []byte(strings.Repeat("#\n", maxTOML)), SectionV2, certsFolder)
	refused(t, "more than a configuration", out, err, 0, "larger than")
}
