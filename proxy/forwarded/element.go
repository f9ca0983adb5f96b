package forwarded

import "strings"

// element is what one proxy has written into Forwarded, by names in lower case.
type element map[string]string

// nodes returns the hops that elements name; "" for one that names none.
func nodes(elements []element) []string {
	hops := make([]string, len(elements))
	for i, e := range elements {
		hops[i] = e["for"]
	}
	return hops
}

// parse returns the elements of a Forwarded header (RFC 7239, 4). It reports whether the header has
// its form. If not, nothing of it counts: a quote may enclose the rest.
func parse(text string) (elements []element, ok bool) {
	if strings.Trim(text, " \t") == "" {
		return nil, true
	}
	current := element{}
	for rest := text; ; {
		var name, value string
		rest = strings.TrimLeft(rest, " \t")
		if rest != "" && rest[0] != ';' && rest[0] != ',' {
			if name, value, rest, ok = pair(rest); !ok {
				return nil, false
			}
			name = strings.ToLower(name)
			if _, twice := current[name]; twice {
				return nil, false
			}
			current[name] = value
			rest = strings.TrimLeft(rest, " \t")
		}
		switch {
		case rest == "":
			return append(elements, current), true
		case rest[0] == ',':
			elements, current = append(elements, current), element{}
		case rest[0] != ';':
			return nil, false
		}
		rest = rest[1:]
	}
}

// pair reads a name and its value, which may be in quotes, from the beginning of text.
func pair(text string) (name, value, rest string, ok bool) {
	name, rest, ok = strings.Cut(text, "=")
	if !ok || name == "" || strings.ContainsFunc(name, notToken) {
		return "", "", "", false
	}
	if strings.HasPrefix(rest, `"`) {
		value, rest, ok = quoted(rest[1:])
		return name, value, rest, ok
	}
	// Many proxies write an address with a port or brackets without the quotes that it needs.
	if end := strings.IndexAny(rest, ",; \t\""); end >= 0 {
		return name, rest[:end], rest[end:], true
	}
	return name, rest, "", true
}

// quoted reads the rest of a quoted string.
func quoted(text string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			return b.String(), text[i+1:], true
		case '\\':
			if i++; i == len(text) {
				return "", "", false
			}
		}
		b.WriteByte(text[i])
	}
	return "", "", false
}

func notToken(c rune) bool {
	return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c))
}
