package splice

import (
	"bytes"
	"slices"
)

// RemoveMirror removes every mirror of urls from a daemon.json, in all their spellings. It also
// works on files that dockerd refuses, such as one with comments. If the file's content before
// sidemirror's edit is known, original is that content: it tells whether an empty list, null or no
// key at all remains when the file had no other mirror. It is nil if unknown.
func RemoveMirror(data []byte, urls []string, original []byte) Removed {
	d := &Daemon{data: data}
	d.encoding, d.text = decode(data)
	d.object, d.members = members(d.text)
	ours := func(s span) bool { return d.text[s.start] == '"' && hasURL(urls, unquoteJSON(d.text, s)) }
	var edits []edit
	last := d.list()
	for i := range d.members {
		m := &d.members[i]
		if m.key != mirrorsKey || !slices.ContainsFunc(m.elements, ours) {
			continue
		}
		switch {
		case slices.ContainsFunc(m.elements, func(s span) bool { return !ours(s) }):
			edits = append(edits, d.withoutElements(m, ours)...)
		case m != last: // a later member overrides this one
			edits = append(edits, edit{d.inside(m), ""})
		default:
			edits = append(edits, d.emptied(m, original))
		}
	}
	fresh := func(url string) bool { return string(data) == freshDaemon(quoteJSON(url), true) }
	return Removed{Rest: d.replace(edits...), Found: len(edits) > 0, Bare: len(edits) > 0 && slices.ContainsFunc(urls, fresh)}
}

// withoutElements removes the elements of a list for which drop is true. One of them stays.
func (d *Daemon) withoutElements(m *member, drop func(span) bool) (edits []edit) {
	first := slices.IndexFunc(m.elements, func(s span) bool { return !drop(s) })
	if first > 0 {
		removed := span{m.elements[0].start, m.elements[first].start}
		if removed.start > m.value.start+1 {
			// AddMirror copied the white space before the first element: remove that copy.
			comma := m.elements[first-1].end + bytes.IndexByte(d.text[m.elements[first-1].end:], ',')
			removed = span{m.value.start + 1, comma + 1}
		}
		edits = append(edits, edit{removed, ""})
	}
	for i := first + 1; i < len(m.elements); i++ {
		if drop(m.elements[i]) {
			edits = append(edits, edit{span{m.elements[i-1].end, m.elements[i].end}, ""})
		}
	}
	return edits
}

// inside returns the range between the brackets of a list up to its last element.
func (d *Daemon) inside(m *member) span {
	return span{m.value.start + 1, m.elements[len(m.elements)-1].end}
}

// emptied returns the edit for a list that has only sidemirror's mirrors.
func (d *Daemon) emptied(m *member, original []byte) edit {
	_, was := decode(original)
	_, list := members(was)
	old := (&Daemon{members: list}).list()
	repeated := slices.ContainsFunc(d.members, func(o member) bool { return o.key == mirrorsKey && o.name != m.name })
	text := bytes.TrimSpace(was)
	isNull := bytes.HasPrefix(text, []byte("null"))
	switch {
	case original != nil && len(d.members) == 1 && (len(text) == 0 || isNull):
		at := d.object
		if len(was) == 0 && bytes.HasPrefix(d.text[at.end:], []byte("\n")) {
			at.end++
		}
		if isNull {
			return edit{at, "null"}
		}
		return edit{at, ""}
	case repeated || old != nil && was[old.value.start] == '[':
		return edit{d.inside(m), ""} // repeated: without this list the other one would count
	case old != nil && !old.value.empty():
		return edit{m.value, string(was[old.value.start:old.value.end])}
	}
	return edit{d.withoutMember(m), ""}
}

// afterComments returns where the white space before the only member begins. A comment before it,
// which dockerd does not accept, stays with the end of its line.
func (d *Daemon) afterComments(m *member) int {
	start := d.object.start + 1
	gap := d.text[start:m.name.start]
	rest := bytes.TrimRight(gap, " \t\r\n")
	if len(rest) == 0 {
		return start
	}
	if n := bytes.IndexByte(gap[len(rest):], '\n'); n >= 0 {
		return start + len(rest) + n + 1
	}
	return start + len(rest)
}

// withoutMember returns the range of text that holds a member and its comma.
func (d *Daemon) withoutMember(m *member) span {
	i := slices.IndexFunc(d.members, func(o member) bool { return o.name == m.name })
	switch {
	case len(d.members) == 1:
		return span{d.afterComments(m), m.value.end}
	case i > 0:
		return span{d.members[i-1].value.end, m.value.end}
	}
	return span{m.name.start, d.members[1].name.start}
}
