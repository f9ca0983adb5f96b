package credential

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// auths is a config.json with one login per key.
func auths(pairs ...string) string {
	text := `{"auths": {`
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf("%q: {\"auth\": %q}", pairs[i], base64.StdEncoding.EncodeToString([]byte(pairs[i+1])))
	}
	return text + `}}`
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fileWith is a credential file of that content.
func fileWith(t *testing.T, text string) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	write(t, path, text)
	return &File{Path: path}
}

func mustLookup(t *testing.T, s Source, registry, repository string) Credential {
	t.Helper()
	c, err := s.Lookup(t.Context(), registry, repository)
	if err != nil {
		t.Fatalf("looking up %s/%s: %v", registry, repository, err)
	}
	return c
}

// login of "user:password", or "" for none.
func spell(c Credential) string {
	if c.IsZero() {
		return ""
	}
	if !c.IdentityToken.IsZero() {
		return c.Username + "|" + c.IdentityToken.Reveal()
	}
	return c.Username + ":" + c.Password.Reveal()
}
