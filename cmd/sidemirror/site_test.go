package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/siteconfig"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/visitor/users"
)

// editSite runs "site enable" with args, or "site disable" without any, without systemd.
func editSite(t *testing.T, file string, args ...string) (siteChange, error) {
	t.Helper()
	var out bytes.Buffer
	s := siteEdit{source: config.Source{Path: file}, out: &out, json: true, systemd: func(string) bool { return false }}
	if len(args) == 0 {
		if err := s.disable(t.Context()); err != nil {
			return siteChange{}, err
		}
	} else {
		var f siteFlags
		cmd := f.command(&s)
		cmd.SetArgs(args)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			return siteChange{}, err
		}
	}
	var done siteChange
	if err := json.Unmarshal(out.Bytes(), &done); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	return done, nil
}

func TestSiteIsEnabledAndDisabled(t *testing.T) {
	const before = "# mine\n[log]\nlevel = \"warn\""
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(before), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"docker.example.com", "--accept-terms"},
		{"docker.example.com", "ghcr.example.com=ghcr.io", "--accept-terms", "--allow", "10.0.0.0/8"},
		{"docker.example.com", "--cert", "/etc/ssl/a.pem", "--key", "/etc/ssl/a.key"},
		{"docker.example.com", "--behind-proxy", "--trusted-proxy", "127.0.0.1", "--trusted-proxy", "fd00::/8"},
		{"docker.example.com", "--behind-proxy", "--trusted-proxy", "127.0.0.1", "--listen", "127.0.0.1:8305,[::1]:8305"},
		{"a.example.com", "b.example.com", "--accept-terms", "--email", "a@example.com", "--acme-directory", "https://ca.example/dir", "--acme-ca", "/ca.pem"},
	} {
		done, err := editSite(t, file, args...)
		if err != nil || !done.Changed || done.Names[0] != args[0] {
			t.Errorf("%q: %+v, %v", args, done, err)
		}
		again, err := editSite(t, file, args...)
		if err != nil || again.Changed {
			t.Errorf("%q again: %+v, %v", args, again, err)
		}
	}
	c, err := config.Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Site; s.ACMEDirectory != "https://ca.example/dir" || s.ACMECA != "/ca.pem" || s.ACMEEmail != "a@example.com" || !s.ACMEAcceptTerms || len(c.SiteNames()) != 2 || c.Log.Level != "warn" {
		t.Errorf("%+v", s)
	}
	if done, err := editSite(t, file); err != nil || !done.Changed {
		t.Errorf("%+v, %v", done, err)
	}
	after, err := os.ReadFile(file)
	if err != nil || string(after) != before {
		t.Errorf("the file came back as %q, %v", after, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if done, err := editSite(t, file); err != nil || done.Changed {
		t.Errorf("there was nothing to do: %+v, %v", done, err)
	}
}

// editUsers runs a "site user" command for a configuration file, with input.
func editUsers(t *testing.T, file, input string, args ...string) (out, notes string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	root := newRootCommand()
	root.SetArgs(append([]string{"--config", file, "site", "user"}, args...))
	root.SetIn(strings.NewReader(input))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	if err := root.ExecuteContext(t.Context()); err != nil {
		return stdout.String(), err.Error(), exitCode(err)
	}
	return stdout.String(), stderr.String(), 0
}

// siteFiles returns the paths of a configuration and of a file of users, in a folder that only this
// user can write.
func siteFiles(t *testing.T) (config, users string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "config.toml"), filepath.Join(dir, "site.htpasswd")
}

func TestUsersOfTheSiteAreAddedListedAndRemoved(t *testing.T) {
	config, file := siteFiles(t)
	if err := os.WriteFile(config, fmt.Appendf(nil, "[registry.\"docker.io\"]\nhosts = [\"docker.example.com\"]\n[site]\nusers = %q\n", file), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		input string
		args  []string
		code  int
		want  string // in the output or the error
	}{
		{"", []string{"list"}, exitFailed, "no such file"},
		{"one\n", []string{"add", "ann", "--password-stdin"}, 0, "ann is added to " + file},
		{"two\n", []string{"add", "bo b", "--password-stdin"}, 0, "docker login docker.example.com"},
		{"three", []string{"add", "ann", "--password-stdin"}, 0, "ann was there already, and has a new password"},
		{"", []string{"list"}, 0, "ann\nbo b\n"},
		{"", []string{"list", "--json"}, 0, `"required": true`},
		{"x", []string{"add", "a:b", "--password-stdin"}, exitUsage, "has a colon"},
		{"", []string{"add", "eve", "--password-stdin"}, exitUsage, "the password is empty"},
		{strings.Repeat("x", 73), []string{"add", "eve", "--password-stdin"}, exitUsage, "73 bytes, and bcrypt uses only the first 72"},
		{"x", []string{"add", "eve"}, exitUsage, "not a terminal"},
		{"x", []string{"add", "eve", "secret"}, exitUsage, ""},
		{"", []string{"remove", "eve"}, exitFailed, `there is no user "eve"`},
		{"", []string{"remove", "ann"}, 0, "ann is removed"},
		{"", []string{"remove", "bo b", "--json"}, 0, `"users": 0`},
		{"", []string{"list"}, 0, ""},
		{"one", []string{"add", "ann", "--password-stdin"}, 0, "is added"},
		{"", []string{"remove", "ann"}, 0, "no visitor can log in"},
	} {
		out, notes, code := editUsers(t, config, step.input, step.args...)
		if code != step.code || !strings.Contains(out+notes, step.want) || strings.Contains(out+notes, "secret") {
			t.Errorf("%q: exit %d, %q, %q; want %d and %q", step.args, code, out, notes, step.code, step.want)
		}
	}
}

// The first user makes the login required, and "site enable" does not make the site open again.
func TestFirstUserMakesTheLoginRequired(t *testing.T) {
	const before = "[site]\nmax_fills = 5\n"
	file, list := siteFiles(t)
	if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	required := func() string {
		t.Helper()
		c, err := config.Load(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Site.Users
	}
	u := siteUsers{edit: siteEdit{source: config.Source{Path: file}, out: io.Discard}, file: list, notes: io.Discard}
	if err := u.add(t.Context(), "ann", credential.NewSecret("a")); err != nil || required() != list {
		t.Fatalf("users is %q, %v", required(), err)
	}
	if err := u.add(t.Context(), "bob", credential.NewSecret("b")); err != nil {
		t.Fatal(err) // as if another process had added ann meanwhile
	}
	for range 2 {
		if _, err := editSite(t, file, "docker.example.com", "--accept-terms"); err != nil || required() != list {
			t.Fatalf("after enable users is %q, %v", required(), err)
		}
	}
	if _, err := editSite(t, file); err != nil || required() != "" {
		t.Errorf("after disable users is %q, %v", required(), err)
	}
	if after, err := os.ReadFile(file); err != nil || string(after) != before {
		t.Errorf("the file came back as %q, %v", after, err)
	}
	if names, err := users.Names(list); err != nil || len(names) != 2 {
		t.Errorf("the users are %q, %v", names, err)
	}
}

func TestUsersThatAPersonHasSwitchedOffAreNotRequired(t *testing.T) {
	file, list := siteFiles(t)
	if err := os.WriteFile(file, []byte("[site]\nusers = \"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := siteUsers{edit: siteEdit{source: config.Source{Path: file}, out: io.Discard}, file: list, notes: io.Discard}
	err := u.add(t.Context(), "ann", credential.NewSecret("a"))
	if err == nil || !strings.Contains(err.Error(), "visitors need no login yet") || !strings.Contains(problem.Hint(err), "users = ") {
		t.Errorf("%v, hint %q", err, problem.Hint(err))
	}
}

func TestSettingsOfTheSiteThatAreWrittenAtOnceAreAllWritten(t *testing.T) {
	file, _ := siteFiles(t)
	var all sync.WaitGroup
	const writers = 8
	for i := range writers {
		all.Go(func() {
			s := siteEdit{source: config.Source{Path: file}, out: io.Discard}
			_, _, err := s.write(t.Context(), func(data []byte) ([]byte, error) {
				return siteconfig.Add(data, []siteconfig.Setting{{Table: []string{"registry", fmt.Sprintf("r%d.example", i)}, Key: "hosts", Value: []string{fmt.Sprintf("h%d.example", i)}}})
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if c, err := config.Load(file, nil); err != nil || len(c.SiteNames()) != writers {
		t.Errorf("%v", err)
	}
}

func TestSiteThatCannotBeServedLeavesTheFileAsItIs(t *testing.T) {
	const before = "[registry.\"docker.io\"]\nhosts = [\"other.example.com\"]\n"
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"hosts is set in":              {"docker.example.com", "--accept-terms"},
		"is not a host name":           {"docker_.example-.com", "c.example.com=ghcr.io", "--accept-terms"},
		"is a URL":                     {"https://docker.example.com=ghcr.io", "--accept-terms"},
		"the certificate has no key":   {"docker.example.com=ghcr.io", "--cert", "/a.pem"},
		"listen":                       {"docker.example.com=ghcr.io", "--accept-terms", "--listen", "8305"},
		"is not a network":             {"docker.example.com=ghcr.io", "--accept-terms", "--allow", "everyone"},
		"where the certificate comes":  {"docker.example.com=ghcr.io"},
		"by one of --accept-terms":     {"docker.example.com=ghcr.io", "--accept-terms", "--behind-proxy"},
		"already stands for docker.io": {"other.example.com=ghcr.io", "--accept-terms"},
	} {
		_, err := editSite(t, file, args...)
		if err == nil || !strings.Contains(err.Error(), want) && want != "is not a host name" {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
		if after, err := os.ReadFile(file); err != nil || string(after) != before {
			t.Errorf("%q changed the file to %q, %v", args, after, err)
		}
	}
}

func TestSiteSettingsAreWrittenInTheSameOrder(t *testing.T) {
	f := siteFlags{acceptTerms: true, email: "a@example.com", directory: "https://ca.example/dir", ca: "/ca.pem"}
	var first []siteconfig.Setting
	for range 20 {
		list, err := f.settings([]string{"docker.example.com"})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = list
		}
		for i := range list {
			if list[i].Key != first[i].Key {
				t.Fatalf("%v, and before %v", list, first)
			}
		}
	}
}

func TestSiteEnableRefusesNamesThatNothingCanBeServedBy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.toml")
	for name, want := range map[string]string{
		"ghcr.io":                       "the registry's own name",
		"docker.io":                     "the registry's own name",
		"docker.example.com=gchr.io":    "looks like ghcr.io",
		"docker":                        "has no domain",
		"https://docker.example.com/":   "docker.example.com",
		"docker.example.com=ghcr.io/me": "ghcr.io/me",
	} {
		_, err := editSite(t, file, name, "--accept-terms")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Fatalf("%s: a file was written", name)
		}
	}
	// Another ACME server, or none, may serve names of a local network; and a registry may have any name.
	for _, args := range [][]string{{"docker", "--accept-terms", "--acme-directory", "https://ca.example/dir"}, {"docker", "--behind-proxy", "--trusted-proxy", "127.0.0.1"}} {
		if _, err := editSite(t, file, args...); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
	if err := os.WriteFile(file, []byte("[registry.'gchr.io']\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := editSite(t, file, "gchr.example.com=gchr.io", "--accept-terms"); err != nil {
		t.Error(err)
	}
}
