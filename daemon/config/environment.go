package config

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"unicode"

	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/sidemirror/sidemirror/internal/spelling"
)

const (
	variablePrefix = "SIDEMIRROR_"
	configVariable = variablePrefix + "CONFIG"
)

// maxVariable limits the value of a variable, in bytes. The kernel allows 128 KiB.
const maxVariable = 64 << 10

// foreign reports whether a variable, without the prefix, is for others. Kubernetes and Docker's links
// give every container variables about a service called sidemirror. A shell's completion has two.
func foreign(name string) bool {
	return slices.Contains([]string{"NAME", "PORT", "ACTIVE_HELP", "COMPLETION_DESCRIPTIONS"}, name) ||
		strings.HasPrefix(name, "PORT_") || strings.HasPrefix(name, "SERVICE_") || strings.HasPrefix(name, "ENV_")
}

// environment returns sidemirror's variables.
func environment(environ []string) (map[string]string, error) {
	vars := make(map[string]string)
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		rest, ours := strings.CutPrefix(name, variablePrefix)
		if !ours || foreign(rest) {
			continue
		}
		if len(text) > maxVariable {
			return nil, &Error{faults: []fault{{at: origin{variable: name}, text: fmt.Sprintf("the value has more than %d bytes", maxVariable), hint: "set the key in the file"}}}
		}
		vars[name] = text
	}
	return vars, nil
}

// variable is one that may be set: the keys that it stands for, and how they are set. If there is
// more than one key, the variable cannot be used.
type variable struct {
	keys  []string
	apply func(text string)
}

func (l *loader) applyEnvironment(vars map[string]string) {
	known := l.variables()
	names := make([]string, 0, len(vars))
	for name := range vars {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		v, ok := known[name]
		switch {
		case name == configVariable:
		case !ok:
			l.faults.add(fault{at: origin{variable: name}, text: "unknown variable", hint: similarVariable(name, known)})
		case len(v.keys) > 1:
			l.faults.add(fault{at: origin{variable: name}, text: "the variable stands for several keys: " + strings.Join(v.keys, ", "), hint: "set the key in the file"})
		default:
			v.apply(vars[name])
		}
	}
}

// variables returns all variables that may be set, by name.
func (l *loader) variables() map[string]*variable {
	known := make(map[string]*variable)
	add := func(name, key string, field any, check func(string) error) {
		if known[name] == nil {
			known[name] = new(variable)
		}
		known[name].keys = append(known[name].keys, key)
		known[name].apply = func(text string) {
			l.set(key, field, check, variableValue(field, text), origin{variable: name})
		}
	}
	for _, k := range keys {
		add(variableName(k.name), k.name, k.field(l.c), k.check)
	}
	for i := range l.c.Registries {
		r := &l.c.Registries[i]
		for _, k := range registryKeys {
			if r.Name != Wildcard && k.name == "enabled" {
				continue
			}
			add(variableName("registry."+r.Name+"."+k.name), registryKey(r.Name, k.name), k.field(r), k.check)
		}
	}
	return known
}

// variableName returns the variable of a dotted key.
func variableName(key string) string {
	return variablePrefix + strings.Map(func(r rune) rune {
		if r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return unicode.ToUpper(r)
		}
		return '_'
	}, key)
}

// similarVariable returns the hint for an unknown variable.
func similarVariable(name string, known map[string]*variable) string {
	names := []string{configVariable}
	for n := range known {
		names = append(names, n)
	}
	slices.Sort(names)
	near := spelling.Nearest(name, names)
	ofRegistry := strings.HasPrefix(name, variablePrefix+"REGISTRY_")
	// Variables of two registries are similar because of the parts that all share.
	if near != "" && (!ofRegistry || spelling.Distance(name, near) <= 2) {
		return fmt.Sprintf("did you mean %s?", near)
	}
	if ofRegistry {
		return "it names no registry that is configured, or no key of a registry"
	}
	return `"sidemirror config show" prints every key`
}

// variableValue returns text as the value that a file would have for field. An empty text is an
// empty list.
func variableValue(field any, text string) value {
	elem := unstable.String
	switch field.(type) {
	case *bool:
		return value{kind: unstable.Bool, text: text}
	case *int, *uint16, *limit:
		return value{kind: unstable.Integer, text: text}
	case *[]uint32:
		elem = unstable.Integer
	case *[]string, *[]netip.AddrPort, *[]netip.Prefix, *[]Upstream:
	default:
		return value{kind: unstable.String, text: text}
	}
	list := value{kind: unstable.Array}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list.elems = append(list.elems, value{kind: elem, text: part})
		}
	}
	return list
}
