package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/secret"
)

// loader makes a Config out of settings.
type loader struct {
	c      *Config
	faults *Error
	values map[string]value // as set, by the key as it is shown
	// unknown are the tables and keys that were reported as unknown, so that their contents
	// are not reported too: at most maxDepth parts, joined by a NUL.
	unknown map[string]bool
}

// maxDepth is the number of parts of the deepest known key and one more.
const maxDepth = 4

// maxRegistries limits the registries: each has a connection pool.
const maxRegistries = 256

func newLoader(path string, data []byte) *loader {
	c := Default()
	c.File = path
	c.source = newSource(path, string(data))
	return &loader{
		c:       c,
		faults:  &Error{source: c.source},
		values:  make(map[string]value),
		unknown: make(map[string]bool),
	}
}

// apply makes the setting s.
func (l *loader) apply(s setting) {
	if l.inUnknown(s.path) {
		return
	}
	if s.path[0] == "registry" {
		l.applyRegistry(s)
		return
	}
	for _, k := range keys {
		if slices.Equal(strings.Split(k.name, "."), s.path) {
			l.set(k.name, k.field(l.c), k.check, s.value, origin{offset: s.offset})
			return
		}
	}
	// The longest part of the path that is a table decides which names are similar.
	depth := 0
	for depth < len(s.path) && isTable(s.path[:depth+1]) {
		depth++
	}
	if depth == len(s.path) {
		l.wantTable(s, fmt.Sprintf("[%s]", strings.Join(s.path, ".")))
		return
	}
	if isKey(s.path[:depth+1]) {
		depth++
	}
	l.reportUnknown(s, depth, children(s.path[:depth]))
}

func (l *loader) applyRegistry(s setting) {
	const form = `[registry."docker.io"]`
	at := origin{offset: s.offset}
	if len(s.path) == 1 {
		l.wantTable(s, form)
		return
	}
	name := s.path[1]
	if whole := unquotedName(s); whole != "" {
		l.mark(s.path[:3])
		l.faults.add(fault{at: at, text: "the name of a registry must be in quotes", hint: fmt.Sprintf("write [registry.%q]", whole), secret: true})
		return
	}
	if err := checkRegistryName(name); err != nil {
		l.mark(s.path[:2])
		l.faults.add(fault{at: at, text: err.Error(), hint: problem.Hint(err), secret: true})
		return
	}
	r := l.addRegistry(name, at)
	if r == nil {
		l.mark(s.path[:2])
		return
	}
	if len(s.path) == 2 {
		l.wantTable(s, fmt.Sprintf("[registry.%q]", name))
		return
	}
	for _, k := range registryKeys {
		if len(s.path) == 3 && k.name == s.path[2] {
			l.set(registryKey(name, k.name), k.field(r), k.check, s.value, at)
			return
		}
	}
	l.reportUnknown(s, 2, registryKeyNames())
}

// unquotedName returns the name that [registry.docker.io] or registry.docker.io.hosts was
// meant to have, or "".
func unquotedName(s setting) string {
	parts := s.path[1:]
	if s.value.kind != unstable.Table && s.value.kind != unstable.InlineTable {
		parts = parts[:len(parts)-1]
	}
	if len(parts) < 2 || len(parts) > 32 || slices.Contains(registryKeyNames(), s.path[2]) {
		return ""
	}
	if name := strings.Join(parts, "."); checkRegistryName(name) == nil {
		return name
	}
	return ""
}

func (l *loader) addRegistry(name string, at origin) *Registry {
	if r := l.c.Registry(name); r != nil {
		r.Named = true
		return r
	}
	if len(l.c.Registries) == maxRegistries {
		l.faults.add(fault{at: at, text: fmt.Sprintf("there are more than %d registries", maxRegistries), hint: "remove some, or use [registry.\"*\"]"})
		return nil
	}
	l.c.Registries = append(l.c.Registries, NewRegistry(name))
	r := &l.c.Registries[len(l.c.Registries)-1]
	r.Named = true
	return r
}

func (l *loader) set(key string, field any, check func(string) error, v value, at origin) {
	if f := set(field, v, check); f != nil {
		if at.variable == "" {
			at.offset = f.offset
		}
		_, isSecret := field.(*secret.Secret)
		isSecret = isSecret || key == sharedURL // keys may have been written into it
		l.faults.add(fault{at: at, text: key + ": " + f.text, hint: f.hint, secret: isSecret})
		return
	}
	l.c.from[key] = at
	l.values[key] = v
}

func (l *loader) wantTable(s setting, form string) {
	if s.value.kind == unstable.Table || s.value.kind == unstable.InlineTable {
		return
	}
	l.mark(s.path)
	l.faults.add(fault{
		at:     origin{offset: s.offset},
		text:   fmt.Sprintf("%s is %s and must be a table", strings.Join(s.path, "."), article(s.value.kind)),
		hint:   "write " + form,
		secret: true,
	})
}

func (l *loader) mark(path []string) { l.unknown[strings.Join(path, "\x00")] = true }

func (l *loader) inUnknown(path []string) bool {
	for n := 1; n <= min(len(path), maxDepth); n++ {
		if l.unknown[strings.Join(path[:n], "\x00")] {
			return true
		}
	}
	return false
}

func isTable(path []string) bool { return len(children(path)) > 0 }

func isKey(path []string) bool {
	return slices.ContainsFunc(keys, func(k key[Config]) bool { return slices.Equal(strings.Split(k.name, "."), path) })
}

// children returns the names that the table at path may contain.
func children(path []string) []string {
	var names []string
	for _, k := range keys {
		parts := strings.Split(k.name, ".")
		if len(parts) > len(path) && slices.Equal(parts[:len(path)], path) && !slices.Contains(names, parts[len(path)]) {
			names = append(names, parts[len(path)])
		}
	}
	if len(path) == 0 {
		names = append(names, "registry")
	}
	return names
}

func registryKeyNames() []string {
	names := make([]string, len(registryKeys))
	for i, k := range registryKeys {
		names[i] = k.name
	}
	return names
}

// registryKey returns the key of a registry as it is shown, and as it is in maps.
func registryKey(registry, name string) string { return fmt.Sprintf("registry.%q.%s", registry, name) }
