package splice

import (
	"bytes"
	"strings"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

// BuilderUndo is the command that removes the entry of a [Builder].
const BuilderUndo = "sidemirror setup-buildx --undo"

// Builder is what the file says from which docker buildx makes the configuration of new builders: a
// buildkitd.toml of a user's, in which the marks name [BuilderUndo].
type Builder struct{ BuildKit }

// marks are those of a buildkitd.toml.
var marks = []string{FileMark, tableMark, settingMark}

const revertCommand = "sidemirror revert"

// withMarks replaces the command in the marks.
func withMarks(data []byte, from, to string) []byte {
	for _, mark := range marks {
		head := strings.TrimSuffix(mark, revertCommand)
		data = bytes.ReplaceAll(data, []byte(head+from), []byte(head+to))
	}
	return data
}

// Add inserts sidemirror into base, as [BuildKit.Add] does.
func (b Builder) Add(name string, base []byte) ([]byte, error) {
	out, err := b.BuildKit.Add(name, base)
	return withMarks(out, revertCommand, BuilderUndo), err
}

// builderMirror is the table in which a Builder names its mirror.
var builderMirror = lazyregexp.New(`(?m)^\[registry\."([^"\\]+)"\]\r?\n  http = true\r?$`)

// RemoveBuilder removes the entry from a file: that of the mirror which the entry names, and of those at
// urls.
func RemoveBuilder(name string, data []byte, urls []string) (Removed, error) {
	if Marked(data) {
		for _, found := range builderMirror().FindAllSubmatch(data, -1) {
			urls = append(urls[:len(urls):len(urls)], "http://"+string(found[1]))
		}
	}
	removed, err := RemoveBuildKit(name, withMarks(data, BuilderUndo, revertCommand), urls)
	removed.Rest = withMarks(removed.Rest, revertCommand, BuilderUndo)
	return removed, err
}
