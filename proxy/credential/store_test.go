package credential

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func user(name, password string) Credential {
	return Credential{Username: name, Password: NewSecret(password)}
}

func emptyStore(t *testing.T) *Store {
	t.Helper()
	return OpenStore(filepath.Join(t.TempDir(), "state", "credentials.json"))
}

func mustPut(t *testing.T, s *Store, key string, c Credential) {
	t.Helper()
	if err := s.Put(t.Context(), key, c); err != nil {
		t.Fatal(err)
	}
}

func TestStoreThatIsNotThereIsEmptyAndNoFault(t *testing.T) {
	s := emptyStore(t)
	if got := spell(mustLookup(t, s, "quay.io", "a/b")); got != "" {
		t.Errorf("got %q", got)
	}
	if users, err := s.List(); err != nil || len(users) != 0 {
		t.Errorf("list: %v, %v", users, err)
	}
	if err := s.Fault(); err != nil {
		t.Errorf("fault: %v", err)
	}
	if err := s.Delete(t.Context(), "quay.io"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("delete: %v", err)
	}
}

func TestLoginsSurviveTheProcess(t *testing.T) {
	s := emptyStore(t)
	mustPut(t, s, "Quay.io", user("me", "pa:ss\"\\wörd<&>"))
	mustPut(t, s, "https://index.docker.io/v1/", user("hub", "p"))
	mustPut(t, s, "quay.io/org", Credential{Username: "org", IdentityToken: NewSecret("idt")})
	mustPut(t, s, "ghcr.io", Credential{IdentityToken: NewSecret("alone")})
	again := OpenStore(s.path)
	for _, tt := range []struct{ registry, repository, want string }{
		{"quay.io", "a", "me:pa:ss\"\\wörd<&>"},
		{"quay.io", "org/a", "org|idt"},
		{"docker.io", "library/alpine", "hub:p"},
		{"ghcr.io", "a", "|alone"},
	} {
		if got := spell(mustLookup(t, again, tt.registry, tt.repository)); got != tt.want {
			t.Errorf("%s/%s: got %q, want %q", tt.registry, tt.repository, got, tt.want)
		}
	}
	users, err := again.List()
	want := map[string]string{"quay.io": "me", "quay.io/org": "org", "docker.io": "hub", "ghcr.io": ""}
	if err != nil || !maps.Equal(users, want) {
		t.Errorf("list: %v, %v; want %v", users, err, want)
	}
	if err := again.Delete(t.Context(), "quay.io"); err != nil {
		t.Fatal(err)
	}
	if got := spell(mustLookup(t, s, "quay.io", "a")); got != "" {
		t.Errorf("after the logout: %q", got)
	}
	if got := spell(mustLookup(t, s, "quay.io", "org/a")); got != "org|idt" {
		t.Errorf("the namespace's login went too: %q", got)
	}
}

func TestRunningDaemonSeesALoginAtOnce(t *testing.T) {
	login := emptyStore(t)
	daemon := OpenStore(login.path)
	mustLookup(t, daemon, "quay.io", "")
	var last string
	for i := range 3 {
		mustPut(t, login, "quay.io", user("me", fmt.Sprint(i)))
		c := mustLookup(t, daemon, "quay.io", "")
		if spell(c) != fmt.Sprintf("me:%d", i) || c.Generation == last {
			t.Errorf("got %q, generation %s after %s", spell(c), c.Generation, last)
		}
		last = c.Generation
	}
}

func TestStoreIsForItsOwnerOnly(t *testing.T) {
	s := emptyStore(t)
	mustPut(t, s, "quay.io", user("me", "p"))
	for path, want := range map[string]fs.FileMode{s.path: 0o600, filepath.Dir(s.path): fs.ModeDir | 0o700} {
		info, err := os.Stat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	if left, _ := filepath.Glob(s.path + "?*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLoginByRootIsReadableForTheDaemon(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to have a folder of another user")
	}
	s := emptyStore(t)
	dir := filepath.Dir(s.path)
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 65534, 65533)); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "quay.io", user("me", "p"))
	var st unix.Stat_t
	if err := unix.Stat(s.path, &st); err != nil || st.Uid != 65534 || st.Gid != 65533 {
		t.Errorf("belongs to %d:%d, %v", st.Uid, st.Gid, err)
	}
	// And root can go on with a file that is not its own.
	mustPut(t, s, "ghcr.io", user("me", "p"))
	if got := spell(mustLookup(t, s, "quay.io", "")); got != "me:p" {
		t.Errorf("got %q", got)
	}
}

// The folder is the daemon's, who may be an attacker by now; login is root.
func TestLoginByRootWritesThroughNoSymlink(t *testing.T) {
	s := emptyStore(t)
	dir := filepath.Dir(s.path)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(t.TempDir(), "victim")
	write(t, victim, "untouched")
	if err := os.Symlink(victim, filepath.Join(filepath.Dir(s.path), "."+filepath.Base(s.path)+".sidemirror")); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "quay.io", user("me", "p"))
	if data, err := os.ReadFile(victim); err != nil || string(data) != "untouched" {
		t.Errorf("victim: %q, %v", data, err)
	}
	replaceBy(t, s.path, func() error { return os.Symlink(victim, s.path) })
	if err := s.Put(t.Context(), "quay.io", user("me", "p")); err == nil {
		t.Error("a store that leads elsewhere is read")
	}
}

func TestLoginsAtOnceDoNotLoseEachOther(t *testing.T) {
	path := emptyStore(t).path
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := OpenStore(path).Put(t.Context(), fmt.Sprintf("r%d.example", i), user("me", "p")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if users, err := OpenStore(path).List(); err != nil || len(users) != 20 {
		t.Errorf("%d logins, %v", len(users), err)
	}
}

func TestLoginDoesNotWaitForEver(t *testing.T) {
	s := emptyStore(t)
	mustPut(t, s, "quay.io", user("me", "p"))
	dir, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Put(ctx, "quay.io", user("me", "q")); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "lock") {
		t.Errorf("got %v", err)
	}
}

func TestStoreInTroubleIsNotOverwritten(t *testing.T) {
	for _, text := range []string{"", "{", `{"auths": []}`, `[1]`, `{"auths": null}`} {
		s := OpenStore(filepath.Join(t.TempDir(), "credentials.json"))
		write(t, s.path, text)
		if err := s.Put(t.Context(), "quay.io", user("me", "p")); err == nil || !strings.Contains(err.Error(), s.path) {
			t.Errorf("%q: got %v", text, err)
		}
		if data, err := os.ReadFile(s.path); err != nil || string(data) != text {
			t.Errorf("%q became %q, %v", text, data, err)
		}
	}
}

func TestLoginKeepsWhatElseStandsInTheStore(t *testing.T) {
	s := OpenStore(filepath.Join(t.TempDir(), "credentials.json"))
	write(t, s.path, `{"note": {"by": "hand", "n": 12345678901234567890}, "auths": {"odd key!": {"x": 1}, "https://index.docker.io/v1/": {"auth": "`+b64("old:p")+`"}}}`)
	mustPut(t, s, "docker.io", user("new", "p"))
	data, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"12345678901234567890", `"odd key!"`} {
		if !strings.Contains(string(data), part) {
			t.Errorf("%s is lost from %s", part, data)
		}
	}
	if strings.Contains(string(data), "index.docker.io") {
		t.Error("the older spelling of the same registry is still there, and would win")
	}
	if got := spell(mustLookup(t, s, "docker.io", "")); got != "new:p" {
		t.Errorf("got %q", got)
	}
}

func TestLoginThatCouldNotBeReadBackIsNotStored(t *testing.T) {
	for name, c := range map[string]Credential{
		"nothing":               {},
		"colon in the username": user("me:too", "p"),
		"no username":           user("", "p"),
		"line break":            user("me\r\nX-Evil: 1", "p"),
		"not UTF-8 token":       {IdentityToken: NewSecret("\xff")},
		"zero bytes":            user("me", "p\x00"),
	} {
		s := emptyStore(t)
		mustPut(t, s, "quay.io", user("old", "p"))
		if err := Check(c); err == nil {
			t.Errorf("%s: passes the check before the registry is asked", name)
		}
		if err := s.Put(t.Context(), "quay.io", c); err == nil {
			t.Errorf("%s: stored", name)
		}
		if got := spell(mustLookup(t, s, "quay.io", "")); got != "old:p" {
			t.Errorf("%s: the older login became %q", name, got)
		}
	}
	if err := emptyStore(t).Put(t.Context(), "not a registry", user("me", "p")); err == nil {
		t.Error("stored under a key that is none")
	}
}

// A password that was held back after a refusal is tried again when the registry has accepted it.
func TestALoginThatIsStoredAgainIsANewGeneration(t *testing.T) {
	s := emptyStore(t)
	mustPut(t, s, "quay.io", user("me", "p"))
	mustPut(t, s, "quay.io/org", user("org", "p"))
	first, org := mustLookup(t, s, "quay.io", "a"), mustLookup(t, s, "quay.io", "org/a")
	mustPut(t, s, "quay.io", user("me", "p"))
	if again := mustLookup(t, s, "quay.io", "a"); again.Generation == first.Generation || spell(again) != spell(first) {
		t.Errorf("generation %s, then %s of %s", first.Generation, again.Generation, spell(again))
	}
	if again := mustLookup(t, s, "quay.io", "org/a"); again.Generation != org.Generation {
		t.Error("another login is a new generation too")
	}
}

func TestALoginWithLinesInItsPasswordIsStored(t *testing.T) {
	s := emptyStore(t)
	key := "{\n  \"type\": \"service_account\",\r\n\t\"private_key\": \"x\"\n}\n"
	mustPut(t, s, "europe-docker.pkg.dev", user("_json_key", key))
	if got := mustLookup(t, OpenStore(s.path), "europe-docker.pkg.dev", "a/b"); got.Password.Reveal() != key {
		t.Errorf("got %q", got.Password.Reveal())
	}
}

func TestTheStoreIsForItsOwnerAloneWhateverTheUmask(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077} {
		func() {
			defer unix.Umask(unix.Umask(umask))
			path := filepath.Join(t.TempDir(), "state", "credentials.json")
			for range 2 { // a new file, and one that is replaced
				mustPut(t, OpenStore(path), "quay.io", user("me", "p"))
				for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
					if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
						t.Errorf("umask %03o: %s: %v, %v", umask, name, info.Mode(), err)
					}
				}
			}
		}()
	}
}

func TestTheMoreSpecificLoginIsUsedWhicheverFileHasIt(t *testing.T) {
	for _, tt := range []struct{ file, decrypted, want string }{
		{"quay.io/org", "quay.io", "file"},
		{"quay.io", "quay.io/org", "decrypted"},
		{"quay.io", "quay.io", "decrypted"},
		{"quay.io", "ghcr.io", "file"},
		{"ghcr.io", "quay.io", "decrypted"},
	} {
		s, other := emptyStore(t), emptyStore(t)
		both := OpenStore(s.path).WithDecrypted(other.path)
		if got := spell(mustLookup(t, both, "quay.io", "org/app")); got != "" {
			t.Errorf("without logins: %q", got)
		}
		mustPut(t, s, tt.file, user("file", "p"))
		mustPut(t, other, tt.decrypted, user("decrypted", "p"))
		if got := spell(mustLookup(t, both, "quay.io", "org/app")); got != tt.want+":p" {
			t.Errorf("%+v: got %q", tt, got)
		}
	}
}

func TestALoginThatCannotBeReadIsAnErrorForItsRegistryOnly(t *testing.T) {
	s, other := emptyStore(t), emptyStore(t)
	both := OpenStore(s.path).WithDecrypted(other.path)
	mustPut(t, other, "ghcr.io", user("me", "p"))
	if err := other.PutProblem(t.Context(), "quay.io", "the key is gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := both.Lookup(t.Context(), "quay.io", "a"); err == nil || !strings.Contains(err.Error(), "the key is gone") {
		t.Errorf("got %v", err)
	}
	if got := spell(mustLookup(t, both, "ghcr.io", "a")); got != "me:p" {
		t.Errorf("another registry: %q", got)
	}
	if err := both.Fault(); err == nil || !strings.Contains(err.Error(), "quay.io") {
		t.Errorf("fault: %v", err)
	}
	if err := os.WriteFile(s.path, []byte("{"), 0o600); err == nil {
		if got := spell(mustLookup(t, both, "ghcr.io", "a")); got != "me:p" {
			t.Errorf("while the other file has a problem: %q", got)
		}
	}
}

func TestAStoreSaysWhichRegistriesItHasALoginFor(t *testing.T) {
	dir := t.TempDir()
	s := OpenStore(filepath.Join(dir, "own.json")).WithDecrypted(filepath.Join(dir, "decrypted.json"))
	has := func(want bool, registries ...string) {
		t.Helper()
		for _, registry := range registries {
			if s.Has(registry) != want {
				t.Errorf("%s: want %t", registry, want)
			}
		}
	}
	has(false, "quay.io")
	login := Credential{Username: "me", Password: NewSecret("p")}
	for _, key := range []string{"quay.io", "ghcr.io/org", "docker.io"} {
		if err := s.Put(t.Context(), key, login); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.decrypted.Put(t.Context(), "r.example:5000", login); err != nil {
		t.Fatal(err)
	}
	if err := s.decrypted.PutProblem(t.Context(), "gcr.io", "it cannot be decrypted"); err != nil {
		t.Fatal(err)
	}
	has(true, "quay.io", "QUAY.IO", "ghcr.io", "docker.io", "index.docker.io", "r.example:5000", "gcr.io")
	has(false, "r.example", "io", "other.example")
	if err := s.Delete(t.Context(), "quay.io"); err != nil {
		t.Fatal(err)
	}
	has(false, "quay.io")
}
