package oci

import (
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// The grammars as OCI Distribution 1.1 and distribution/reference write them.
var (
	writtenRepository = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	writtenTag        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// FuzzNames compares what is checked by hand with the grammars as they are written.
func FuzzNames(f *testing.F) {
	for _, s := range []string{
		"", "a", "library/alpine", "a__b", "a___b", "a_.b", "a..b", "a--b", "a-", "-a", "a//b", "/a", "a/", "A", "a.b_c-d/e0",
		"v1.0-rc_1", "1.", ".1", "-1", "_", strings.Repeat("v", 128), strings.Repeat("v", 129),
		"docker.io", "docker..io", ".io", "io.", "ghcr.io:443", "[::1]:5000", "a\n", "é",
		"sha256:" + strings.Repeat("0", 64), "sha256:" + strings.Repeat("g", 64), "sha256:" + strings.Repeat("A", 64), "sha512:" + strings.Repeat("0", 128),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > MaxName {
			if ValidRepository(s) || ValidRegistry(s) {
				t.Errorf("a name of %d characters is valid", len(s))
			}
			return
		}
		if got, want := ValidRepository(s), writtenRepository.MatchString(s); got != want {
			t.Errorf("repository %q: %v, want %v", s, got, want)
		}
		if got, want := ValidRegistry(s), registryGrammar().MatchString(s); got != want {
			t.Errorf("registry %q: %v, want %v", s, got, want)
		}
		if got, want := validTag(s), writtenTag.MatchString(s); got != want {
			t.Errorf("tag %q: %v, want %v", s, got, want)
		}
		if _, err := digest.Parse(s); canonical(s) && err != nil {
			t.Errorf("digest %q: %v", s, err)
		}
	})
}
