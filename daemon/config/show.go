package config

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/internal/secret"
)

// WriteTOML writes every value in force as a file that Load accepts. Each has a comment that says
// where it comes from: the default, a line of the file, or a variable.
func (c *Config) WriteTOML(w io.Writer) error {
	var b strings.Builder
	table := ""
	for _, k := range keys {
		in, name, _ := cutLast(k.name)
		if in != table {
			fmt.Fprintf(&b, "\n[%s]\n", in)
			table = in
		}
		writeLine(&b, name, plain(k.field(c)), c.origin(k.name))
	}
	for _, r := range c.everyRegistry() {
		fmt.Fprintf(&b, "\n[registry.%s]\n", tomlText(r.Name))
		for _, k := range registryKeys {
			v := plain(k.field(r))
			// Leave out an empty text: an empty path is not valid.
			if v == "" || r.Name == Wildcard && (k.name == "upstreams" || k.name == "hosts") || r.Name != Wildcard && k.name == "enabled" {
				continue
			}
			writeLine(&b, k.name, v, c.origin(registryKey(r.Name, k.name)))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteJSON writes the same for programs: an object for each table, and in it for each key
// {"value": …, "from": …}. Durations are texts.
func (c *Config) WriteJSON(w io.Writer) error {
	type shown struct {
		Value any    `json:"value"`
		From  string `json:"from"`
	}
	top := make(map[string]any)
	for _, k := range keys {
		in := top
		parts := strings.Split(k.name, ".")
		for _, part := range parts[:len(parts)-1] {
			if in[part] == nil {
				in[part] = make(map[string]any)
			}
			in = in[part].(map[string]any)
		}
		in[parts[len(parts)-1]] = shown{plain(k.field(c)), c.origin(k.name)}
	}
	registries := make(map[string]map[string]shown)
	for _, r := range c.everyRegistry() {
		registries[r.Name] = make(map[string]shown)
		for _, k := range registryKeys {
			if r.Name != Wildcard && k.name == "enabled" {
				continue
			}
			registries[r.Name][k.name] = shown{plain(k.field(r)), c.origin(registryKey(r.Name, k.name))}
		}
	}
	top["registry"] = registries
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(top)
}

// everyRegistry returns the registries, with "*" even if it is not enabled.
func (c *Config) everyRegistry() []*Registry {
	var list []*Registry
	for _, r := range slices.Concat(c.Registries, c.off) {
		list = append(list, &r)
	}
	return list
}

// plain returns what field points at, as a text, a boolean, a number, or a list of texts or numbers.
func plain(field any) any {
	switch p := field.(type) {
	case *string:
		return *p
	case *secret.Secret:
		return secret.URL(*p)
	case *bool:
		return *p
	case *int:
		return *p
	case *limit:
		return int(*p)
	case *uint16:
		return *p
	case *time.Duration:
		return p.String()
	case *age:
		return time.Duration(*p).String()
	case *Size:
		return p.String()
	case *rate:
		return p.String()
	case *Free:
		return p.String()
	case *[]uint32:
		return append([]uint32{}, *p...)
	case *[]netip.AddrPort:
		return texts(*p)
	case *[]netip.Prefix:
		return texts(*p)
	case *[]Upstream:
		return texts(*p)
	case *[]string:
		return append([]string{}, *p...)
	}
	panic(fmt.Sprintf("config: a key of type %T", field))
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}

func writeLine(b *strings.Builder, name string, v any, from string) {
	fmt.Fprintf(b, "%s = %s  # %s\n", name, tomlValue(v), printable(from))
}

func tomlValue(v any) string {
	switch v := v.(type) {
	case string:
		return tomlText(v)
	case []string:
		out := make([]string, len(v))
		for i, text := range v {
			out[i] = tomlText(text)
		}
		return "[" + strings.Join(out, ", ") + "]"
	case []uint32:
		return strings.ReplaceAll(fmt.Sprint(v), " ", ", ")
	}
	return fmt.Sprint(v)
}

// tomlText returns a basic string. Go's own quoting has escapes that TOML lacks.
func tomlText(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\U%08X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
