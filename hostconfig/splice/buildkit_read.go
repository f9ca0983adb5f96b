package splice

import (
	"maps"
	"slices"
)

// UnverifiedByBuildKit returns the registries that a buildkitd.toml has buildkitd reach without verifying
// a certificate, or by plain HTTP. A file that cannot be read names none.
func UnverifiedByBuildKit(name string, data []byte) []string {
	d, err := parseTOML(name, data)
	if err != nil {
		return nil
	}
	all, _ := lookup(d.values, []string{"registry"}).(map[string]any)
	var list []string
	for _, registry := range slices.Sorted(maps.Keys(all)) {
		for _, key := range []string{"http", "insecure"} {
			if lookup(all, []string{registry, key}) == true && !slices.Contains(list, registry) {
				list = append(list, registry)
			}
		}
	}
	return list
}
