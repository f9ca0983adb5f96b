package users

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sidemirror/sidemirror/internal/durable"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/secret"
)

// newFolder returns a folder that only this user can write.
func newFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func set(t testing.TB, path, name, password string) Change {
	t.Helper()
	done, err := Set(t.Context(), path, name, secret.New(password))
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func contentOf(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestUserWhoIsAddedCanLogInUntilRemoved(t *testing.T) {
	t.Parallel()
	path := filepath.Join(newFolder(t), "new", "site.htpasswd")
	if done := set(t, path, "ann", "first"); done.Existed || done.Left != 1 {
		t.Errorf("%+v", done)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	u := New()
	u.Read(path)
	if err := try(t, u, home, "ann", "first"); err != nil {
		t.Error(err)
	}
	if done := set(t, path, "ann", "second"); !done.Existed || done.Left != 1 {
		t.Errorf("%+v", done)
	}
	u.Read(path)
	if a, b := try(t, u, home, "ann", "first"), try(t, u, home, "ann", "second"); !errors.Is(a, ErrWrong) || b != nil {
		t.Errorf("with the old password: %v; with the new one: %v", a, b)
	}
	if done, err := Remove(t.Context(), path, "ann"); err != nil || !done.Existed || done.Left != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	u.Read(path)
	if err := try(t, u, home, "ann", "second"); !errors.Is(err, ErrWrong) || !u.Required() || u.Problem() != nil {
		t.Errorf("without users: %v, required %v, %v", err, u.Required(), u.Problem())
	}
	if done, err := Remove(t.Context(), path, "ann"); err != nil || done.Existed {
		t.Errorf("a user who is not there: %+v, %v", done, err)
	}
}

// Each file gets bob and loses him again. What others wrote in it stays to the byte; only a line that
// has no end gets one.
func TestOtherLinesStayAsTheyAre(t *testing.T) {
	t.Parallel()
	hash := hashOf(t, "x")
	for _, before := range []string{
		"",
		"# people\n\n",
		"ann:" + hash + "\n",
		"# people\r\n\r\nann:" + hash + "\r\n",
		"ann:" + hash + "  \t\n# bob:is not here\n \nbobby:" + hash + "\n",
		"ann:" + hash,
		"# ends here",
	} {
		path := filepath.Join(newFolder(t), "users")
		write(t, path, before)
		set(t, path, "bob", "b")
		added := contentOf(t, path)
		if !strings.HasPrefix(added, before) || !strings.Contains(added[len(before):], "bob:$2y$10$") {
			t.Errorf("%q became %q", before, added)
		}
		if strings.Contains(before, "\r") != strings.HasSuffix(added, "\r\n") {
			t.Errorf("%q got another line end: %q", before, added)
		}
		set(t, path, "bob", "c")
		if again := contentOf(t, path); len(again) != len(added) || again == added {
			t.Errorf("%q became %q", added, again)
		}
		if _, err := Remove(t.Context(), path, "bob"); err != nil {
			t.Error(err)
		}
		want := before
		if want != "" && !strings.HasSuffix(want, "\n") {
			want += "\n"
		}
		if after := contentOf(t, path); after != want {
			t.Errorf("%q came back as %q", before, after)
		}
	}
}

func TestUserIsReplacedInPlace(t *testing.T) {
	t.Parallel()
	hash := hashOf(t, "x")
	path := filepath.Join(newFolder(t), "users")
	// A hash that is not bcrypt's and a user who is there twice are repaired by the way.
	write(t, path, "ann:"+hash+"\nbob:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n# end\nbob:"+hash)
	if done := set(t, path, "bob", "b"); !done.Existed || done.Left != 2 {
		t.Errorf("%+v", done)
	}
	lines := strings.Split(contentOf(t, path), "\n")
	if len(lines) != 4 || lines[0] != "ann:"+hash || !strings.HasPrefix(lines[1], "bob:$2y$") || lines[2] != "# end" || lines[3] != "" {
		t.Errorf("%q", lines)
	}
	if names, err := Names(path); err != nil || !slices.Equal(names, []string{"ann", "bob"}) {
		t.Errorf("%q, %v", names, err)
	}
}

func TestFileThatTheDaemonWouldRefuseIsNotWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(newFolder(t), "users")
	before := "root:x:0:0:root:/root:/bin/bash\nann:" + hashOf(t, "x") + "\n"
	write(t, path, before)
	_, err := Set(t.Context(), path, "bob", secret.New("b"))
	_, removeErr := Remove(t.Context(), path, "ann")
	for _, err := range []error{err, removeErr} {
		p, ok := errors.AsType[*problem.Problem](err)
		if !ok || p.Path != path || p.Line != 1 || !strings.Contains(err.Error(), "nothing was written") {
			t.Errorf("%v", err)
		}
	}
	if after := contentOf(t, path); after != before {
		t.Errorf("the file is %q", after)
	}
}

func TestUnsafeFileIsNotEdited(t *testing.T) {
	t.Parallel()
	good := "ann:" + hashOf(t, "x") + "\n"
	for name, spoil := range map[string]func(path string) error{
		"writable by others":               func(p string) error { return os.Chmod(p, 0o646) },
		"writable by its group":            func(p string) error { return os.Chmod(p, 0o660) },
		"in a folder that others can edit": func(p string) error { return os.Chmod(filepath.Dir(p), 0o777) },
		"a link": func(p string) error {
			return errors.Join(os.Rename(p, p+".real"), os.Symlink(p+".real", p))
		},
		"a link to nothing": func(p string) error { return errors.Join(os.Remove(p), os.Symlink(p+".gone", p)) },
		"a pipe":            func(p string) error { return errors.Join(os.Remove(p), syscall.Mkfifo(p, 0o600)) },
		"a folder":          func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) },
		"too long":          func(p string) error { return os.Truncate(p, maxFile+1) },
	} {
		path := filepath.Join(newFolder(t), "users")
		write(t, path, good)
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
		_, setErr := Set(t.Context(), path, "bob", secret.New("b"))
		_, removeErr := Remove(t.Context(), path, "ann")
		_, namesErr := Names(path)
		for _, err := range []error{setErr, removeErr, namesErr} {
			if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Code != "site-users-unusable" || p.Hint == "" {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := os.Stat(path + ".gone"); err == nil {
			t.Errorf("%s: the file that the link leads to was created", name)
		}
	}
}

func TestFileOfAnotherUserIsNotEdited(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	for _, of := range []func(string) string{filepath.Clean, filepath.Dir} {
		path := filepath.Join(newFolder(t), "users")
		write(t, path, "")
		if err := os.Chown(of(path), 12345, 12345); err != nil {
			t.Fatal(err)
		}
		_, err := Set(t.Context(), path, "bob", secret.New("b"))
		if err == nil || !strings.Contains(err.Error(), "belongs to uid 12345") || problem.Hint(err) != "chown root "+of(path) {
			t.Errorf("%v, hint %q", err, problem.Hint(err))
		}
	}
}

func TestModeAndOwnerStay(t *testing.T) {
	t.Parallel()
	path := filepath.Join(newFolder(t), "users")
	write(t, path, "")
	if err := os.Chmod(path, 0o604); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 0, 12345); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	set(t, path, "ann", "a")
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	a, b := before.Sys().(*syscall.Stat_t), after.Sys().(*syscall.Stat_t)
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Ino == b.Ino {
		t.Errorf("%+v became %+v", a, b)
	}
}

func TestNamesAndPasswordsThatClientsCannotSendAreRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(newFolder(t), "users")
	for _, name := range []string{"", "a:b", "#ann", " ann", "ann ", "an\nn", "a\x00", "a\x7f", "a\u200bb", "a\u202eb", "\xff", strings.Repeat("a", maxName+1)} {
		_, err := Set(t.Context(), path, name, secret.New("x"))
		if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Code != "site-user-name" || p.Hint == "" {
			t.Errorf("the name %q: %v", name, err)
		}
	}
	for _, password := range []string{"", strings.Repeat("a", longest+1), strings.Repeat("é", longest/2+1), "a\nb", "a\x00b"} {
		_, err := Set(t.Context(), path, "ann", secret.New(password))
		if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Code != "site-user-password" || p.Hint == "" {
			t.Errorf("the password %q: %v", password, err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file was created: %v", err)
	}
	u := New()
	for name, password := range map[string]string{
		"ann": strings.Repeat("a", longest), strings.Repeat("b", maxName): "b", "bo b": " ", "李": "密码", "a'$(id)\"": "`id`", "-x": "-y", "a#b@c": "a:b",
	} {
		set(t, path, name, password)
		u.Read(path)
		if err := try(t, u, home, name, password); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestAddsAtOnceLoseNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(newFolder(t), "users")
	var all sync.WaitGroup
	const people = 12
	for i := range people {
		all.Go(func() {
			name := fmt.Sprintf("user%d", i)
			if _, err := Set(t.Context(), path, name, secret.New("x")); err != nil {
				t.Error(err)
			}
			if i%3 == 0 {
				if _, err := Remove(t.Context(), path, name); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	names, err := Names(path)
	slices.Sort(names)
	if want := people - people/3; err != nil || len(names) != want || slices.Contains(names, "user3") {
		t.Errorf("%q, %v", names, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left are %v, %v", entries, err)
	}
}

// A file that another process locks is edited afterwards, with what that process wrote.
func TestEditWaitsForTheLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(newFolder(t), "users")
	write(t, path, "")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := durable.Lock(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := Set(t.Context(), path, "bob", secret.New("b"))
		done <- err
	}()
	other := path + ".new"
	write(t, other, "ann:"+hashOf(t, "x")+"\n")
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if names, err := Names(path); err != nil || !slices.Equal(names, []string{"ann", "bob"}) {
		t.Errorf("%q, %v", names, err)
	}
}

// What is added can be used, and what is removed leaves the rest as it was.
func FuzzEdit(f *testing.F) {
	hash := hashOf(f, "x")
	f.Add("ann:"+hash+"\n", "bob")
	f.Add("# c\r\nbob:"+hash+"\r\n", "bob")
	f.Add("bob:"+hash, "b")
	f.Add("\xff\r", "bob ")
	f.Fuzz(func(t *testing.T, text, name string) {
		if CheckName(name) != nil {
			return
		}
		before := []byte(text)
		l, wrong := parse(before)
		without, existed := withoutUser(before, name)
		added, again := withUser(before, name, hash)
		if existed != again {
			t.Fatalf("%q: there is %q, and there is not: %v, %v", text, name, existed, again)
		}
		back, _ := withoutUser(added, name)
		if !bytes.Equal(back, without) && !bytes.Equal(bytes.TrimRight(back, "\r\n"), bytes.TrimRight(without, "\r\n")) {
			t.Errorf("%q became %q and came back as %q", text, added, back)
		}
		if wrong != nil {
			return
		}
		if _, had := l.hashes[name]; had != existed {
			t.Errorf("%q: the daemon has %q: %v, and the editor: %v", text, name, had, existed)
		}
		after, wrong := parse(added)
		if wrong != nil {
			t.Fatalf("%q became %q, which cannot be used: %v", text, added, wrong)
		}
		if got := after.hashes[name]; got.Reveal() != hash {
			t.Errorf("%q became %q, without %q", text, added, name)
		}
	})
}
