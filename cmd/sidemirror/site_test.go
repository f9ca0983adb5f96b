package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/siteconfig"
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
