package splice

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestRegistriesConfIsReadAsTheLibraryDoes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text string
		want Registries
	}{
		"empty":              {"", Registries{}},
		"location alone":     {"[[registry]]\nlocation = 'r.test/'\n", Registries{Entries: []RegistryEntry{{Prefix: "r.test", Location: "r.test"}}}},
		"byte order mark":    {"\ufeff[[registry]]\nlocation = 'r.test'\n", Registries{Entries: []RegistryEntry{{Prefix: "r.test", Location: "r.test"}}}},
		"keys in capitals":   {"[[registry]]\nLocation = 'r.test'\nBLOCKED = true\n", Registries{Entries: []RegistryEntry{{Prefix: "r.test", Location: "r.test", Blocked: true}}}},
		"wildcard":           {"[[registry]]\nprefix = '*.r.test'\n", Registries{Entries: []RegistryEntry{{Prefix: "*.r.test"}}}},
		"first of a prefix":  {"[[registry]]\nlocation = 'r.test'\n[[registry]]\nprefix = 'r.test'\nlocation = 's.test'\n", Registries{Entries: []RegistryEntry{{Prefix: "r.test", Location: "r.test"}}}},
		"version 1":          {"[registries.search]\nregistries = ['docker.io']\n", Registries{Old: true}},
		"key outside":        {"mirror-by-digest-only = true\n", Registries{Ignored: []string{"mirror-by-digest-only"}}},
		"key in a registry":  {"[[registry]]\nlocation = 'r.test'\nmirrors = ['m.test']\n", Registries{Entries: []RegistryEntry{{Prefix: "r.test", Location: "r.test", Ignored: []string{"mirrors"}}}}},
		"key in a mirror":    {"[[registry]]\nlocation = 'r.test'\n[[registry.mirror]]\nlocation = 'm.test'\nblocked = true\n", Registries{Entries: []RegistryEntry{{Prefix: "r.test", Location: "r.test", Mirrors: []RegistryMirror{{Location: "m.test"}}, Ignored: []string{"blocked"}}}}},
		"settings of mirror": {"[[registry]]\nlocation = 'r.test'\n[[registry.mirror]]\nlocation = 'm.test'\ninsecure = true\npull-from-mirror = 'tag-only'\n", Registries{Entries: []RegistryEntry{{Prefix: "r.test", Location: "r.test", Mirrors: []RegistryMirror{{Location: "m.test", Insecure: true, PullFromMirror: "tag-only"}}}}}},
	} {
		got, err := ReadRegistries("/x", []byte(tt.text))
		if err != nil || !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, tt.want)
		}
	}
}

func TestRegistriesConfThatTheLibraryRefusesIsRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"not TOML":                   "[[registry\n",
		"registry is a table":        "[registry]\nlocation = 'r.test'\n",
		"mirror is a table":          "[[registry]]\nlocation = 'r.test'\n[registry.mirror]\nlocation = 'm.test'\n",
		"blocked is a string":        "[[registry]]\nlocation = 'r.test'\nblocked = 'yes'\n",
		"neither prefix nor a place": "[[registry]]\ninsecure = true\n",
		"no location":                "[[registry]]\nprefix = 'r.test'\n",
		"scheme":                     "[[registry]]\nlocation = 'https://r.test'\n",
		"scheme of a mirror":         "[[registry]]\nlocation = 'r.test'\n[[registry.mirror]]\nlocation = 'http://m.test'\n",
		"mirror without location":    "[[registry]]\nlocation = 'r.test'\n[[registry.mirror]]\ninsecure = true\n",
		"wildcard with a path":       "[[registry]]\nprefix = '*.r.test/x'\n",
		"pull-from-mirror outside":   "[[registry]]\nlocation = 'r.test'\npull-from-mirror = 'all'\n",
		"pull-from-mirror unknown":   "[[registry]]\nlocation = 'r.test'\n[[registry.mirror]]\nlocation = 'm.test'\npull-from-mirror = 'never'\n",
		"both restrictions":          "[[registry]]\nlocation = 'r.test'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'm.test'\npull-from-mirror = 'all'\n",
		"insecure and not":           "[[registry]]\nprefix = 'a.test'\nlocation = 'r.test'\n[[registry]]\nlocation = 'r.test'\ninsecure = true\n",
		"too large":                  strings.Repeat("#", maxTOML+1),
	} {
		var p *problem.Problem
		if _, err := ReadRegistries("/x", []byte(text)); !errors.As(err, &p) || p.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// written is a drop-in with one mirrored registry and an entry of the administrator's.
func written() []byte {
	return NewRegistries([]RegistryEntry{
		{Prefix: "r.test", Location: "r.test", DigestOnly: true, Mirrors: []RegistryMirror{{Location: "127.0.0.1:305/r.test", Insecure: true}, {Location: "m.test"}}},
		{Prefix: "s.test", Location: "s.test", Mirrors: []RegistryMirror{{Location: "127.0.0.1:305/s.test", Insecure: true}}},
		{Prefix: "s.test:443", Location: "s.test:443"},
	})
}

func TestRemovedRegistriesLeaveWhatOthersWrote(t *testing.T) {
	t.Parallel()
	urls := []string{"http://127.0.0.1:305"}
	ours := string(written())
	var plain strings.Builder // as a program writes it that drops comments
	for line := range strings.Lines(ours) {
		if !strings.HasPrefix(line, "#") {
			plain.WriteString(line)
		}
	}
	const theirs = "[[registry]]\nlocation = 't.test'\n"
	for name, tt := range map[string]struct {
		now, rest   string
		found, bare bool
	}{
		"ours":                      {ours, "", true, true},
		"something below":           {ours + "\n" + theirs, "\n" + theirs, true, false},
		"something above":           {"unqualified-search-registries = []\n" + ours, "unqualified-search-registries = []\n", true, false},
		"nothing of ours":           {theirs, theirs, false, false},
		"without comments":          {plain.String(), "\n[[registry]]\nprefix = \"r.test\"\nlocation = \"r.test\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"m.test\"\n\n[[registry]]\nprefix = \"s.test:443\"\nlocation = \"s.test:443\"\n", true, false},
		"another sidemirror's port": {"[[registry]]\nlocation = 'r.test'\n[[registry.mirror]]\nlocation = '127.0.0.1:3055/r.test'\n", "[[registry]]\nlocation = 'r.test'\n[[registry.mirror]]\nlocation = '127.0.0.1:3055/r.test'\n", false, false},
	} {
		got, err := RemoveRegistries("/x", []byte(tt.now), urls)
		if err != nil || string(got.Rest) != tt.rest || got.Found != tt.found || got.Bare != tt.bare {
			t.Errorf("%s: %q found %v bare %v, %v; want %q", name, got.Rest, got.Found, got.Bare, err, tt.rest)
		}
	}
	if _, err := RemoveRegistries("/x", []byte(FileMark+"\n[[\n"), urls); err == nil {
		t.Error("a marked file that is torn is not refused")
	}
}

func FuzzRegistries(f *testing.F) {
	f.Add(written())
	f.Add([]byte("[[registry]]\nlocation = 'r.test'\n[[registry.mirror]]\nlocation = '127.0.0.1:305/r.test'\n"))
	f.Add([]byte("registry = [{location = 'r.test'}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := ReadRegistries("/x", data)
		removed, removeErr := RemoveRegistries("/x", data, []string{"http://127.0.0.1:305"})
		if err != nil || removeErr != nil || file.Old {
			return
		}
		if _, err := ReadRegistries("/x", removed.Rest); err != nil && !Marked(data) && len(file.Entries) > 0 {
			t.Fatalf("%q: what is left, %q, cannot be read: %v", data, removed.Rest, err)
		}
		for _, e := range file.Entries {
			if len(e.Ignored) > 0 || e.Location == "" {
				continue
			}
			again, err := ReadRegistries("/x", NewRegistries([]RegistryEntry{e}))
			if err != nil || len(again.Entries) != 1 || !reflect.DeepEqual(again.Entries[0], e) {
				t.Fatalf("%+v became %+v, %v", e, again, err)
			}
		}
	})
}
