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
	found := false
	last := d.list()
	// Backwards, so that what is still to be edited keeps its offset.
	for i := range slices.Backward(d.members) {
		m := &d.members[i]
		if m.key != mirrorsKey || !slices.ContainsFunc(m.elements, ours) {
			continue
		}
		found = true
		switch {
		case slices.ContainsFunc(m.elements, func(s span) bool { return !ours(s) }):
			d.removeElements(m, ours)
		case m != last: // a later member overrides this one
			d.data = d.replace(d.inside(m), "")
		default:
			from, with := d.emptied(m, original)
			d.data = d.replace(from, with)
		}
	}
	fresh := func(url string) bool { return string(data) == freshDaemon(quoteJSON(url), true) }
	return Removed{Rest: d.data, Found: found, Bare: found && slices.ContainsFunc(urls, fresh)}
}

// removeElements removes the elements of a list for which drop is true. One of them stays.
func (d *Daemon) removeElements(m *member, drop func(span) bool) {
	first := slices.IndexFunc(m.elements, func(s span) bool { return !drop(s) })
	for i := len(m.elements) - 1; i > first; i-- {
		if drop(m.elements[i]) {
			d.data = d.replace(span{m.elements[i-1].end, m.elements[i].end}, "")
		}
	}
	if first == 0 {
		return
	}
	removed := span{m.elements[0].start, m.elements[first].start}
	if removed.start > m.value.start+1 {
		// AddMirror copied the white space before the first element: remove that copy.
		comma := m.elements[first-1].end + bytes.IndexByte(d.text[m.elements[first-1].end:], ',')
		removed = span{m.value.start + 1, comma + 1}
	}
	d.data = d.replace(removed, "")
}

// inside returns the range between the brackets of a list up to its last element.
func (d *Daemon) inside(m *member) span {
	return span{m.value.start + 1, m.elements[len(m.elements)-1].end}
}

// emptied returns the edit for a list that has only sidemirror's mirrors.
func (d *Daemon) emptied(m *member, original []byte) (from span, with string) {
	_, was := decode(original)
	_, list := members(was)
	old := (&Daemon{members: list}).list()
	repeated := slices.ContainsFunc(d.members, func(o member) bool { return o.key == mirrorsKey && o.name != m.name })
	text := bytes.TrimSpace(was)
	isNull := bytes.HasPrefix(text, []byte("null"))
	switch {
	case original != nil && len(d.members) == 1 && (len(text) == 0 || isNull):
		from = d.object
		if len(was) == 0 && bytes.HasPrefix(d.text[from.end:], []byte("\n")) {
			from.end++
		}
		if isNull {
			with = "null"
		}
		return from, with
	case repeated || old != nil && was[old.value.start] == '[':
		return d.inside(m), "" // repeated: without this list the other one would count
	case old != nil && !old.value.empty():
		return m.value, string(was[old.value.start:old.value.end])
	}
	return d.withoutMember(m), ""
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
