package splice

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Registries is a registries.conf of containers/image, or a drop-in for one.
type Registries struct {
	// Entries have each prefix once: of two entries with one prefix the library takes the first.
	Entries []RegistryEntry

	// Old says that the file is of version 1, which podman 6 rejects.
	Old bool

	// Ignored are keys outside all entries that no version of the library reads.
	Ignored []string
}

// RegistryEntry is one [[registry]] table.
type RegistryEntry struct {
	Prefix, Location string
	Insecure         bool
	Blocked          bool
	DigestOnly       bool // mirror-by-digest-only
	Mirrors          []RegistryMirror

	// Ignored are keys of the table that this sidemirror does not know.
	Ignored []string
}

// RegistryMirror is one [[registry.mirror]] table.
type RegistryMirror struct {
	Location       string
	Insecure       bool
	PullFromMirror string // "all", "digest-only", "tag-only" or empty
	NamespaceProxy string
}

// registriesTOML is how the library decodes a file (sysregistriesv2, loadConfigFile).
type registriesTOML struct {
	Registry []struct {
		Prefix             string
		Location           string
		Insecure           bool
		PullFromMirror     string `toml:"pull-from-mirror"`
		NamespaceProxy     string `toml:"namespace-proxy"`
		Blocked            bool
		MirrorByDigestOnly bool `toml:"mirror-by-digest-only"`
		Mirror             []struct {
			Location       string
			Insecure       bool
			PullFromMirror string `toml:"pull-from-mirror"`
			NamespaceProxy string `toml:"namespace-proxy"`
		}
	}
	Search        []string          `toml:"unqualified-search-registries"`
	Helpers       []string          `toml:"credential-helpers"`
	ShortNameMode string            `toml:"short-name-mode"`
	LayerHelper   string            `toml:"additional-layer-store-auth-helper"`
	Aliases       map[string]string `toml:"aliases"`
	Registries    struct{ Search, Insecure, Block struct{ Registries []string } }
}

// The keys that the library reads: at the top, of a registry and of a mirror.
var (
	topKeys      = []string{"registry", "unqualified-search-registries", "credential-helpers", "short-name-mode", "additional-layer-store-auth-helper", "aliases", "registries"}
	mirrorKeys   = []string{"location", "insecure", "pull-from-mirror", "namespace-proxy"}
	registryKeys = append([]string{"prefix", "mirror", "blocked", "mirror-by-digest-only"}, mirrorKeys...)
)

// ReadRegistries reads a registries.conf or a drop-in. It refuses what the library refuses: podman,
// buildah and skopeo fail every pull with such a file.
func ReadRegistries(name string, data []byte) (*Registries, error) {
	if len(data) > maxTOML {
		return nil, refuse("toml-too-large", name, 0, "check what the file is", "is larger than %d KiB", maxTOML>>10)
	}
	data = bytes.TrimPrefix(data, bom)
	var said registriesTOML
	var values map[string]any
	err := toml.Unmarshal(data, &said)
	if err == nil {
		err = toml.Unmarshal(data, &values)
	}
	if err == nil {
		err = checkArrays(values)
	}
	if err != nil {
		return nil, refuse("registries-conf-syntax", name, lineOfError(err), "correct it; until then podman, buildah and skopeo fail", "not a valid registries.conf: %v", err)
	}
	v1 := said.Registries
	r := &Registries{
		Old:     v1.Search.Registries != nil || v1.Insecure.Registries != nil || v1.Block.Registries != nil,
		Ignored: unknownKeys(values, topKeys),
	}
	tables := tablesOf(values, "registry")
	for i, t := range said.Registry {
		e := RegistryEntry{
			Prefix: strings.TrimRight(t.Prefix, "/"), Location: strings.TrimRight(t.Location, "/"),
			Insecure: t.Insecure, Blocked: t.Blocked, DigestOnly: t.MirrorByDigestOnly,
		}
		for _, m := range t.Mirror {
			e.Mirrors = append(e.Mirrors, RegistryMirror{strings.TrimRight(m.Location, "/"), m.Insecure, m.PullFromMirror, m.NamespaceProxy})
		}
		if i < len(tables) {
			e.Ignored = unknownKeys(tables[i], registryKeys)
			for _, m := range tablesOf(tables[i], "mirror") {
				e.Ignored = append(e.Ignored, unknownKeys(m, mirrorKeys)...)
			}
		}
		if t.NamespaceProxy != "" {
			e.Ignored = append(e.Ignored, "namespace-proxy") // its meaning without a mirror is the library's
		}
		if t.PullFromMirror != "" {
			return nil, refuse("registries-conf-invalid", name, 0, "move it into a [[registry.mirror]]", "sets pull-from-mirror for the registry %q, and not for a mirror", e.Prefix)
		}
		if err := e.check(name); err != nil {
			return nil, err
		}
		r.Entries = append(r.Entries, e)
	}
	if err := checkConflicts(name, r.Entries); err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	r.Entries = slices.DeleteFunc(r.Entries, func(e RegistryEntry) bool {
		again := seen[e.Prefix]
		seen[e.Prefix] = true
		return again
	})
	return r, nil
}

// check refuses an entry that the library refuses, and completes it (postProcessRegistries).
func (e *RegistryEntry) check(name string) error {
	invalid := func(format string, args ...any) error {
		return refuse("registries-conf-invalid", name, 0, "correct it; until then podman, buildah and skopeo fail", format, args...)
	}
	if e.Prefix == "" {
		e.Prefix = e.Location
	}
	wildcard := strings.HasPrefix(e.Prefix, "*.")
	switch {
	case e.Prefix == "":
		return invalid("has a [[registry]] without prefix and location")
	case e.Location == "" && !wildcard:
		return invalid("has no location for %q", e.Prefix)
	case wildcard && strings.ContainsAny(e.Prefix, "/@:"):
		return invalid("has the prefix %q, which must be of the form *.example.com", e.Prefix)
	case hasScheme(e.Prefix) || hasScheme(e.Location):
		return invalid("has a URL as the prefix or location of %q", e.Prefix)
	}
	for _, m := range e.Mirrors {
		switch {
		case m.Location == "" || hasScheme(m.Location):
			return invalid("has %q as the location of a mirror of %q", m.Location, e.Prefix)
		case m.PullFromMirror != "" && e.DigestOnly:
			return invalid("sets both mirror-by-digest-only and pull-from-mirror for %q", e.Prefix)
		case !slices.Contains([]string{"", "all", "digest-only", "tag-only"}, m.PullFromMirror):
			return invalid("has %q as pull-from-mirror of %q", m.PullFromMirror, m.Location)
		}
	}
	return nil
}

func hasScheme(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

// checkConflicts refuses two entries of one location that disagree, as the library does.
func checkConflicts(name string, entries []RegistryEntry) error {
	first := make(map[string]RegistryEntry)
	for _, e := range entries {
		key := e.Location
		if key == "" {
			key = e.Prefix
		}
		if o, ok := first[key]; ok && o.Conflicts(e) {
			return refuse("registries-conf-invalid", name, 0, "make the two agree; until then podman, buildah and skopeo fail",
				"has two entries for %q that differ in insecure or blocked", key)
		} else if !ok {
			first[key] = e
		}
	}
	return nil
}

// Conflicts reports whether two entries cannot be in one file: the library rejects a file with two
// entries of one location that differ in insecure or blocked.
func (e RegistryEntry) Conflicts(o RegistryEntry) bool {
	return e.Location == o.Location && (e.Insecure != o.Insecure || e.Blocked != o.Blocked)
}

// unknownKeys returns the keys of a table that are not among some, sorted. Case does not count.
func unknownKeys(table map[string]any, known []string) []string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(table)) {
		if !slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, key) }) {
			list = append(list, key)
		}
	}
	return list
}

// checkArrays refuses a table where the library wants an array of tables.
func checkArrays(values map[string]any) error {
	for key, value := range values {
		array, ok := value.([]any)
		if isArray := strings.EqualFold(key, "registry") || strings.EqualFold(key, "mirror"); !isArray {
			continue
		} else if !ok {
			return fmt.Errorf("[%s] must be [[%[1]s]]", key)
		}
		for _, item := range array {
			table, _ := item.(map[string]any)
			if err := checkArrays(table); err != nil {
				return err
			}
		}
	}
	return nil
}

// tablesOf returns the tables of an array of tables.
func tablesOf(values map[string]any, name string) (list []map[string]any) {
	for key, value := range values {
		if array, ok := value.([]any); ok && strings.EqualFold(key, name) {
			for _, item := range array {
				table, _ := item.(map[string]any)
				list = append(list, table)
			}
		}
	}
	return list
}

// table returns an entry as TOML.
func (e RegistryEntry) table() string {
	text := "[[registry]]\nprefix = " + quoteTOML(e.Prefix) + "\nlocation = " + quoteTOML(e.Location) + "\n"
	for _, setting := range []struct {
		name string
		on   bool
	}{{"insecure", e.Insecure}, {"blocked", e.Blocked}, {"mirror-by-digest-only", e.DigestOnly}} {
		if setting.on {
			text += setting.name + " = true\n"
		}
	}
	for _, m := range e.Mirrors {
		text += "[[registry.mirror]]\nlocation = " + quoteTOML(m.Location) + "\n"
		if m.Insecure {
			text += "insecure = true\n"
		}
		if m.PullFromMirror != "" {
			text += "pull-from-mirror = " + quoteTOML(m.PullFromMirror) + "\n"
		}
		if m.NamespaceProxy != "" {
			text += "namespace-proxy = " + quoteTOML(m.NamespaceProxy) + "\n"
		}
	}
	return text
}

// NewRegistries returns the drop-in of sidemirror that has some entries.
func NewRegistries(entries []RegistryEntry) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n# An entry replaces one of the same prefix in registries.conf, and repeats what that says.\n", FileMark)
	for _, e := range entries {
		b.WriteString("\n" + e.table())
	}
	b.WriteString(registriesEnd + "\n")
	return []byte(b.String())
}
