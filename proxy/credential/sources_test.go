package credential

import (
	"context"
	"errors"
	"regexp"
	"testing"
)

type fake func(registry, repository string) (Credential, error)

func (f fake) Lookup(_ context.Context, registry, repository string) (Credential, error) {
	return f(registry, repository)
}

func TestFirstSourceThatKnowsWins(t *testing.T) {
	knows := func(user string) Source {
		return fake(func(string, string) (Credential, error) { return Credential{Username: user}, nil })
	}
	nothing := fake(func(string, string) (Credential, error) { return Credential{}, nil })
	trouble := errors.New("in trouble")
	fails := fake(func(string, string) (Credential, error) { return Credential{}, trouble })
	for _, tt := range []struct {
		name    string
		sources Sources
		want    string
		err     error
	}{
		{"none", nil, "", nil},
		{"no source knows", Sources{nothing, nothing}, "", nil},
		{"the first of two", Sources{nothing, knows("a"), knows("b")}, "a", nil},
		{"behind one in trouble", Sources{fails, knows("a")}, "a", nil},
		{"one fails and no source knows: not anonymous", Sources{fails, nothing}, "", trouble},
		{"one in trouble behind one that knows", Sources{knows("a"), fails}, "a", nil},
	} {
		c, err := tt.sources.Lookup(t.Context(), "quay.io", "a/b")
		if c.Username != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: got %q, %v; want %q, %v", tt.name, c.Username, err, tt.want, tt.err)
		}
	}
}

func TestGenerationChangesWithTheMaterialAndOnlyWithIt(t *testing.T) {
	c := Credential{Username: "me", Password: NewSecret("pass"), IdentityToken: NewSecret("idt")}
	first := generation(fileKind, "quay.io", c, "")
	if !regexp.MustCompile(`^file:[0-9a-f]{16}$`).MatchString(first) {
		t.Errorf("form: %s", first)
	}
	same := Credential{Username: "me", Password: NewSecret("pass"), IdentityToken: NewSecret("idt"), Generation: "x"}
	if generation(fileKind, "quay.io", same, "") != first {
		t.Error("the same material has another generation")
	}
	seen := map[string]string{first: "the first"}
	for name, g := range map[string]string{
		"another kind":      generation(storeKind, "quay.io", c, ""),
		"another key":       generation(fileKind, "quay.io/org", c, ""),
		"another user":      generation(fileKind, "quay.io", Credential{Username: "me2", Password: c.Password, IdentityToken: c.IdentityToken}, ""),
		"another password":  generation(fileKind, "quay.io", Credential{Username: "me", Password: NewSecret("pass2"), IdentityToken: c.IdentityToken}, ""),
		"no token":          generation(fileKind, "quay.io", Credential{Username: "me", Password: c.Password}, ""),
		"token as password": generation(fileKind, "quay.io", Credential{Username: "me", Password: c.IdentityToken, IdentityToken: c.Password}, ""),
		"accepted anew":     generation(fileKind, "quay.io", c, "2026-01-02T03:04:05Z"),
		"shifted":           generation(fileKind, "quay.io", Credential{Username: "m", Password: NewSecret("epass"), IdentityToken: c.IdentityToken}, ""),
	} {
		if other, ok := seen[g]; ok {
			t.Errorf("%s has the generation of %s", name, other)
		}
		seen[g] = name
	}
}
