package containersimage

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// composition is what sidemirror's drop-in should say, and what it cannot.
type composition struct {
	host    string // of sidemirror: "127.0.0.1:305"
	wanted  []string
	all     map[string]origin
	later   map[string]origin // in files that replace sidemirror's entries
	ports   []string          // "host:port" of the mirrored hosts, that the host's files name
	entries []splice.RegistryEntry
	skipped []skip
	notes   []problem.Problem
}

// skip is a registry, or a prefix, that is not mirrored.
type skip struct {
	prefix string
	why    problem.Problem
}

// compose returns the entries for the wanted registries: one for each registry, and one for each of
// the administrator's prefixes from which such a registry is reached.
func compose(l *layout, host string, wanted, ports []string) *composition {
	c := &composition{host: host, wanted: wanted, ports: ports}
	mine := slices.IndexFunc(l.files, func(s source) bool { return s.path == File || after(s.path) })
	if mine < 0 {
		mine = len(l.files)
	}
	c.all = inForce(l.files)
	c.later = inForce(slices.Concat(l.files[mine:], l.user))
	for _, registry := range wanted {
		theirs, found := find(c.all, registry)
		if !found {
			theirs = origin{RegistryEntry: splice.RegistryEntry{Location: registry}}
		}
		theirs = theirs.at(registry)
		c.add(theirs)
	}
	for _, prefix := range slices.Sorted(maps.Keys(c.all)) {
		e := c.all[prefix]
		if !strings.HasPrefix(prefix, "*.") && !slices.Contains(wanted, prefix) && c.reaches(e.Location) {
			c.add(e)
		}
	}
	for _, s := range l.files {
		for _, key := range s.file.Ignored {
			c.notes = append(c.notes, problem.Problem{
				Code: "registries-conf-unknown-key", Path: s.path, Text: fmt.Sprintf("has the key %q outside all entries, where it has no effect", key),
				Hint: "move it to where it belongs, or remove it",
			})
		}
	}
	c.guardPorts()
	c.dropConflicts()
	return c
}

// after reports whether a drop-in is read after sidemirror's.
func after(name string) bool {
	return strings.HasSuffix(path.Dir(name), ".conf.d") && path.Base(name) > path.Base(File)
}

// at returns an entry as it applies to one registry: that of a wildcard, or of a shorter prefix, gets
// what the library would add to its locations.
func (e origin) at(registry string) origin {
	rest := ""
	if end := matchEnd(registry, e.Prefix); e.Prefix != "" && end >= 0 {
		rest = registry[end:]
	}
	e.Prefix = registry
	if e.Location == "" {
		e.Location = registry // a wildcard's
	} else {
		e.Location += rest
	}
	if rest == "" {
		return e
	}
	e.Mirrors = slices.Clone(e.Mirrors)
	for i := range e.Mirrors {
		e.Mirrors[i].Location += rest
	}
	return e
}

// reaches reports whether a location is in a wanted registry.
func (c *composition) reaches(location string) bool {
	registry, _, _ := strings.Cut(location, "/")
	return slices.Contains(c.wanted, registry)
}

// add adds the entry for a prefix with sidemirror as the first mirror, or the reason why there is none.
func (c *composition) add(e origin) {
	refuse := func(code problem.Code, hint, format string, args ...any) {
		c.skipped = append(c.skipped, skip{e.Prefix, problem.Problem{Code: code, Path: e.path, Text: fmt.Sprintf(format, args...), Hint: hint}})
	}
	note := func(code problem.Code, format string, args ...any) {
		c.notes = append(c.notes, problem.Problem{Code: code, Path: e.path, Text: fmt.Sprintf(format, args...)})
	}
	switch {
	case e.Blocked:
		note("registry-blocked", "blocks %s: nothing is pulled from there", e.Prefix)
		return
	case !c.reaches(e.Location):
		note("registry-elsewhere", "has %s pulled from %s, which sidemirror does not mirror", e.Prefix, e.Location)
		return
	case len(e.Ignored) > 0:
		refuse("registries-conf-unknown-key", "correct the key, or move it to where it belongs",
			"has the unknown key %q in the entry of %s, which sidemirror cannot repeat", e.Ignored[0], e.Prefix)
		return
	}
	if over, ok := c.later[e.Prefix]; ok {
		e.path = over.path
		refuse("registries-conf-replaced", fmt.Sprintf("move the entry to registries.conf, or add the mirror %s/%s to it", c.host, e.Location),
			"has an entry for %s, which replaces sidemirror's", e.Prefix)
		return
	}
	if tie, ok := find(c.all, e.Prefix); ok && len(tie.Prefix) == len(e.Prefix) && tie.Prefix < e.Prefix {
		e.path = tie.path
		refuse("registries-conf-replaced", "write an entry for that registry", "has an entry for %s, which the library prefers to one for %s", tie.Prefix, e.Prefix)
		return
	}
	if e.DigestOnly {
		note("registry-digest-only", "uses mirrors of %s for digests only: tags are resolved by the registry", e.Prefix)
	}
	own := splice.RegistryMirror{Location: c.host + "/" + pathOf(e.Location), Insecure: true}
	others := slices.DeleteFunc(slices.Clone(e.Mirrors), func(m splice.RegistryMirror) bool { return m.Location == own.Location })
	e.Mirrors = append([]splice.RegistryMirror{own}, others...)
	c.entries = append(c.entries, e.RegistryEntry)
}

// reached returns the registries that the entries send to sidemirror, and those of them that the library
// may itself reach without verification or by plain HTTP, whatever the prefix.
func (c *composition) reached() (registries, unverified []string) {
	verified := make(map[string]bool)
	for _, e := range c.entries {
		registry, _, _ := strings.Cut(e.Location, "/")
		verified[registry] = verified[registry] || !e.Insecure
	}
	for _, registry := range slices.Sorted(maps.Keys(verified)) {
		registries = append(registries, registry)
		if !verified[registry] {
			unverified = append(unverified, registry)
		}
	}
	return registries, unverified
}

// pathOf returns a location as a path below sidemirror's address. A path cannot have a colon, so that
// a port is written as proxy/oci reads it: "registry.example__5000".
func pathOf(location string) string {
	registry, rest, found := strings.Cut(location, "/")
	registry = strings.Replace(registry, ":", "__", 1)
	if found {
		return registry + "/" + rest
	}
	return registry
}

// guardPorts adds entries for other ports of the mirrored hosts, which say what is in force for them.
func (c *composition) guardPorts() {
	var guards []splice.RegistryEntry
	for _, e := range c.entries {
		if strings.ContainsAny(e.Prefix, ":/") {
			continue
		}
		for _, name := range c.otherRegistries(e.Prefix) {
			theirs, found := find(c.all, name)
			if !found {
				theirs = origin{RegistryEntry: splice.RegistryEntry{Location: name}}
			}
			if theirs.Prefix != name {
				guards = append(guards, theirs.at(name).RegistryEntry)
			}
		}
	}
	c.entries = append(c.entries, guards...)
}

// otherRegistries returns the registries of a host that have a port and no entry yet.
func (c *composition) otherRegistries(host string) (names []string) {
	ports := otherPorts
	if slices.Contains(alone, host) {
		ports = []string{"443"}
	}
	for _, port := range ports {
		names = append(names, host+":"+port)
	}
	for _, name := range slices.Concat(c.wanted, c.ports) {
		if strings.HasPrefix(name, host+":") && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(c.entries, func(e splice.RegistryEntry) bool { return e.Prefix == name })
	})
}

// dropConflicts removes entries that cannot be in one file with an earlier one. Without the entry for
// a port the entry for its host would do harm, so that this goes too.
func (c *composition) dropConflicts() {
	for i := 0; i < len(c.entries); i++ {
		e := c.entries[i]
		earlier := slices.IndexFunc(c.entries[:i], func(o splice.RegistryEntry) bool { return o.Conflicts(e) })
		if earlier < 0 {
			continue
		}
		other := c.entries[earlier].Prefix
		host, _, _ := strings.Cut(e.Prefix, ":")
		c.entries = slices.DeleteFunc(c.entries, func(o splice.RegistryEntry) bool { return o.Prefix == e.Prefix || o.Prefix == host })
		c.skipped = append(c.skipped, skip{e.Prefix, problem.Problem{
			Code: "registries-conf-conflict", Path: c.all[e.Prefix].path,
			Text: fmt.Sprintf("has entries for %s and %s, which cannot be in one file: they have one location and differ in insecure or blocked", other, e.Prefix),
			Hint: "make the two agree",
		}})
		i = -1 // what was earlier may be gone
	}
}
