package users

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// hashOf returns a hash of the lowest cost, as htpasswd writes it.
func hashOf(t testing.TB, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(string(hash), "$2a$", "$2y$", 1)
}

// fileOf writes a file of users.
func fileOf(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "site.htpasswd")
	write(t, path, text)
	return path
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func TestFileIsUsedWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	hash := hashOf(t, "x")
	for _, tt := range []struct {
		name, text string
		line       int
		problem    string // "" for none
	}{
		{"empty", "", 0, ""},
		{"users, comments, empty lines", "# people\r\n\nann:" + hash + "\r\nbo b:" + strings.Replace(hash, "$2y$", "$2b$", 1) + "  \n", 0, ""},
		{"no colon", "ann\n", 1, "is not hashed with bcrypt"},
		{"no name", "\n:" + hash, 2, "does not begin with the name"},
		{"name with a control character", "a\x07:" + hash, 1, "does not begin with the name"},
		{"MD5", "ann:" + hash + "\nbob:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00\n", 2, `"bob" is not hashed with bcrypt`},
		{"SHA-1", "bob:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=", 1, "is not hashed with bcrypt"},
		{"crypt", "bob:rqXexS6ZhobKA", 1, "is not hashed with bcrypt"},
		{"plain", "bob:secret", 1, "is not hashed with bcrypt"},
		{"bcrypt cut off", "bob:" + hash[:59], 1, "is damaged"},
		{"bcrypt with something after it", "bob:" + hash + ":x", 1, "is damaged"},
		{"bcrypt with a foreign character", "bob:" + hash[:40] + "!" + hash[41:], 1, "is damaged"},
		{"cost too high", "bob:$2y$31$" + hash[7:], 1, "has cost 31"},
		{"twice", "ann:" + hash + "\nann:" + hash, 2, "is there twice"},
	} {
		l, p := parse([]byte(tt.text))
		switch {
		case (p == nil) != (tt.problem == ""):
			t.Errorf("%s: %v", tt.name, p)
		case p != nil && (p.Line != tt.line || !strings.Contains(p.Text, tt.problem) || p.Hint == "" || l != nil):
			t.Errorf("%s: line %d, %q, hint %q", tt.name, p.Line, p.Text, p.Hint)
		}
		if p != nil && strings.Contains(fmt.Sprintf("%v %+v %#v", p, *p, l), "$2y$04") {
			t.Errorf("%s: the problem shows a hash: %v", tt.name, p)
		}
	}
}

func TestFileThatOthersCanChangeIsRefused(t *testing.T) {
	t.Parallel()
	good := "ann:" + hashOf(t, "x")
	for name, spoil := range map[string]func(path string) error{
		"writable by others":    func(p string) error { return os.Chmod(p, 0o666) },
		"writable by its group": func(p string) error { return os.Chmod(p, 0o660) },
		"a folder": func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return os.Mkdir(p, 0o750)
		},
		"too long": func(p string) error { return os.Truncate(p, maxFile+1) },
		"missing":  os.Remove,
	} {
		path := fileOf(t, good)
		if _, p := readFile(path); p != nil {
			t.Fatal(p)
		}
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		if l, p := readFile(path); p == nil || l != nil || p.Code != "site-users-unreadable" || p.Hint == "" {
			t.Errorf("%s: %v, %v", name, l, p)
		}
	}
}

func FuzzParse(f *testing.F) {
	hash := hashOf(f, "x")
	f.Add("ann:" + hash + "\n#\nbob:" + hash)
	f.Add("ann:$2y$05$\n")
	f.Add("a:$2" + strings.Repeat("/", 58))
	f.Fuzz(func(t *testing.T, text string) {
		l, p := parse([]byte(text))
		if (l == nil) == (p == nil) {
			t.Fatalf("both or neither: %v, %v", l, p)
		}
		if p != nil {
			return
		}
		for name, h := range l.hashes {
			// What is accepted can be checked: the only outcomes are right and wrong.
			if cost, err := bcrypt.Cost([]byte(h.Reveal())); err != nil || cost > maxCost || name == "" {
				t.Fatalf("%q was accepted: %v", name, err)
			}
		}
	})
}
