package splice

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

const mirrorsKey = "registry-mirrors"

// Daemon is a daemon.json that dockerd of some version accepts.
type Daemon struct {
	// Mirrors are the registry-mirrors in force.
	Mirrors []string

	name     string
	version  Version
	data     []byte
	encoding encoding
	text     []byte // data as UTF-8
	whole    span   // of the JSON value in text; empty if there is none
	object   span   // of the object; empty if there is none
	members  []member
}

// ReadDaemon parses a daemon.json as dockerd of that version does (moby, daemon/config,
// getConflictFreeConfiguration), and refuses what makes that dockerd refuse to start: a syntax
// error, an unknown key, a value of the wrong type, and values that it checks without looking at the
// host. If the version is unknown, it accepts what any version from 23 on accepts.
func ReadDaemon(name string, data []byte, v Version) (*Daemon, error) {
	d := &Daemon{name: name, version: v, data: data}
	if v.before(23, 0) {
		d.text = data
	} else if d.encoding, d.text = decode(data); !utf8.Valid(d.text) {
		return nil, refuse("daemon-json-encoding", name, badLine(d.text), "save the file as UTF-8", "has bytes that are not UTF-8, which dockerd refuses")
	}
	if err := d.parse(); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	if list := d.list(); list != nil {
		if err := json.Unmarshal(d.text[list.value.start:list.value.end], &d.Mirrors); err != nil {
			return nil, d.syntax(err)
		}
	}
	return d, nil
}

// badLine returns the line of the first byte that is not UTF-8.
func badLine(text []byte) int {
	for at := 0; ; {
		r, size := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && size <= 1 {
			return lineAt(text, at)
		}
		at += size
	}
}

// parse finds the JSON value and its members.
func (d *Daemon) parse() error {
	trimmed := bytes.TrimSpace(d.text)
	if d.version.before(23, 0) {
		// dockerd 20.10 reads the first value and ignores what follows.
		dec := json.NewDecoder(bytes.NewReader(d.text))
		var first json.RawMessage
		if err := dec.Decode(&first); errors.Is(err, io.EOF) {
			return refuse("daemon-json-syntax", d.name, 1, "write {} into it, or remove it; dockerd before 23 does not start with it", "is empty")
		} else if err != nil {
			return d.syntax(err)
		}
		end := int(dec.InputOffset())
		d.whole = span{end - len(first), end}
	} else if len(trimmed) > 0 {
		start := bytes.Index(d.text, trimmed)
		d.whole = span{start, start + len(trimmed)}
	} else {
		return nil
	}
	var values map[string]any
	if err := json.Unmarshal(d.json(), &values); err != nil {
		return d.syntax(err)
	}
	if d.object, d.members = members(d.text); d.object.empty() && string(d.json()) != "null" {
		return refuse("daemon-json-syntax", d.name, 1, "write an object: { … }", "has no object that sidemirror could find")
	}
	return nil
}

// json returns the JSON value; nil if the file is empty.
func (d *Daemon) json() []byte { return d.text[d.whole.start:d.whole.end] }

// syntax returns the problem behind an error of encoding/json.
func (d *Daemon) syntax(err error) error {
	line, hint := 0, "correct it; dockerd does not start with it"
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		at := d.whole.start + int(syntax.Offset) - 1
		line = lineAt(d.text, at)
		if at >= 0 && at < len(d.text) {
			switch d.text[at] {
			case '/', '#':
				hint = "remove the comment; dockerd does not start with it"
			case '}', ']':
				hint = "remove the comma before it, or complete the value; dockerd does not start with it"
			}
		}
	case errors.As(err, &wrong):
		line = lineAt(d.text, d.whole.start+int(wrong.Offset)-1)
		if wrong.Field == "" {
			return refuse("daemon-json-syntax", d.name, line, "write an object: { … }", "is a JSON %s, not an object", wrong.Value)
		}
	}
	return refuse("daemon-json-syntax", d.name, line, hint, "not valid JSON: %v", err)
}

// list returns the last registry-mirrors, which is the one that counts; nil if there is none.
func (d *Daemon) list() *member {
	for i := range slices.Backward(d.members) {
		if d.members[i].key == mirrorsKey {
			return &d.members[i]
		}
	}
	return nil
}

// Decode stores the file's settings in the struct that into points to, as dockerd reads them.
func (d *Daemon) Decode(into any) error {
	if d.whole.empty() {
		return nil
	}
	return json.Unmarshal(d.json(), into)
}

// HasList reports whether registry-mirrors is a list, and neither absent nor null.
func (d *Daemon) HasList() bool {
	list := d.list()
	return list != nil && d.text[list.value.start] == '['
}

// Settled reports whether url is the first mirror.
func (d *Daemon) Settled(url string) bool { return len(d.Mirrors) > 0 && reaches(d.Mirrors[0], url) }

// AddMirror returns the file with url before all other mirrors. The file must not have it.
func (d *Daemon) AddMirror(url string) ([]byte, error) {
	at, with := d.insertion(quoteJSON(url))
	out := d.replace(edit{at, with})
	return out, d.verify(out, slices.Insert(slices.Clone(d.Mirrors), 0, url))
}

// insertion returns the range of text to replace, and the text that adds a mirror there.
func (d *Daemon) insertion(element string) (at span, with string) {
	setting := `"` + mirrorsKey + `": [` + element + `]`
	list := d.list()
	switch {
	case d.whole.empty():
		return span{}, freshDaemon(element, len(d.text) == 0)
	case d.object.empty(): // null
		return d.whole, "{" + setting + "}"
	case list == nil:
		return d.insertMember(setting)
	case !d.HasList(): // null
		return list.value, "[" + element + "]"
	}
	at = span{list.value.start + 1, list.value.start + 1}
	if len(list.elements) == 0 {
		return at, element
	}
	if gap := string(d.text[at.start:list.elements[0].start]); gap != "" {
		return at, gap + element + ","
	}
	return at, element + ", "
}

// freshDaemon is the object that AddMirror writes into an empty file.
func freshDaemon(element string, terminated bool) string {
	text := "{\n  \"" + mirrorsKey + "\": [" + element + "]\n}"
	if terminated {
		text += "\n"
	}
	return text
}

// insertMember puts text after the last member, with the white space that the last one has.
func (d *Daemon) insertMember(text string) (at span, with string) {
	start := d.object.start + 1
	if len(d.members) == 0 {
		if rest := d.text[start:]; bytes.IndexByte(rest[:bytes.IndexByte(rest, '}')], '\n') >= 0 {
			text = newline(rest) + "  " + text
		}
		return span{start, start}, text
	}
	last := d.members[len(d.members)-1]
	gap := " "
	if between := string(d.text[start:last.name.start]); len(d.members) == 1 {
		gap = between
	} else if n := strings.LastIndexByte(between, ','); n >= 0 {
		gap = between[n+1:]
	}
	if gap == "" {
		gap = " "
	}
	return span{last.value.end, last.value.end}, "," + gap + text
}

// edit replaces a range of a text.
type edit struct {
	span
	with string
}

// replace returns the file after edits of its text, which are in their order and apart.
func (d *Daemon) replace(edits ...edit) []byte {
	var out []byte
	text, data := 0, len(d.encoding.mark) // what is copied already
	out = append(out, d.data[:data]...)
	for _, e := range edits {
		start := data + d.encoding.size(d.text[text:e.start])
		out = append(append(out, d.data[data:start]...), d.encoding.encode(e.with)...)
		text, data = e.end, start+d.encoding.size(d.text[e.start:e.end])
	}
	return append(out, d.data[data:]...)
}

// ClearMirrors returns the file with "registry-mirrors": []. If the key disappears and dockerd
// reloads, its old mirrors stay in force; an empty list clears them. It returns nil if the file has
// no such key.
func (d *Daemon) ClearMirrors() []byte {
	list := d.list()
	if list == nil {
		return nil
	}
	return d.replace(edit{list.value, "[]"})
}

// verify reports an edit after which anything but the mirrors means something else.
func (d *Daemon) verify(out []byte, mirrors []string) error {
	after, err := ReadDaemon(d.name, out, d.version)
	if err != nil {
		return err
	}
	var was, is map[string]any
	if err := errors.Join(d.Decode(&was), after.Decode(&is)); err != nil {
		return err
	}
	delete(was, mirrorsKey)
	delete(is, mirrorsKey)
	if len(was) == 0 && len(is) == 0 {
		was, is = nil, nil
	}
	if !reflect.DeepEqual(was, is) || !slices.Equal(after.Mirrors, mirrors) {
		return refuse("daemon-json-edit", d.name, 0, "report this file to sidemirror's authors", "cannot be edited without changing something else in it")
	}
	return nil
}

// line returns the line of a setting, whatever the case of its name.
func (d *Daemon) line(key string) int {
	for i := range slices.Backward(d.members) {
		if strings.EqualFold(d.members[i].key, key) {
			return lineAt(d.text, d.members[i].name.start)
		}
	}
	return 0
}
