package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/config"
)

// Everything that serve needs, one fault at a time.
func TestCheckFindsWhatServeNeeds(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	logins := file("logins.json", `{"auths":{"ghcr.io":{"auth":"bWU6c2VjcmV0"}}}`, 0o600)
	open := file("open.json", `{"auths":{"ghcr.io":{"auth":"bWU6c2VjcmV0"}}}`, 0o644)
	broken := file("broken.json", `{`, 0o600)
	pem := file("ca.pem", newCertificate(t), 0o644)
	noPEM := file("no.pem", "nothing", 0o644)
	people := file("site.htpasswd", "ann:$2y$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe\n", 0o640)
	keys := file("keys", "[default]\naws_access_key_id = A\naws_secret_access_key = bWU6\n", 0o600)
	shared := "[cache.shared]\nurl = 's3://layers?endpoint=http://127.0.0.1:9'\n"
	ghcr := "[registry.'ghcr.io']\n"
	for name, tt := range map[string]struct {
		text    string
		codes   []string
		refuses string
	}{
		"nothing set":                       {"", nil, ""},
		"a certificate":                     {ghcr + "ca = '" + pem + "'\n", nil, ""},
		"a certificate that is missing":     {ghcr + "ca = '/etc/nonexistent/ca.pem'\n", nil, "no such file"},
		"a certificate that is none":        {ghcr + "ca = '" + noPEM + "'\n", nil, "no.pem"},
		"a client certificate that is none": {ghcr + "cert = '" + noPEM + "'\nkey = '" + noPEM + "'\n", nil, "no.pem"},
		"a folder as a certificate":         {ghcr + "ca = '" + dir + "'\n", nil, dir},
		"logins":                            {"[credentials]\nfiles = ['" + logins + "']\n", nil, ""},
		"logins that are missing":           {"[credentials]\nfiles = ['/etc/nonexistent/x.json']\n", []string{"credentials-unreadable"}, ""},
		"logins that every user may read":   {"[credentials]\nfiles = ['" + open + "']\n", []string{"credentials-unreadable"}, ""},
		"logins that are no JSON":           {"[credentials]\nfiles = ['" + logins + "', '" + broken + "']\n", []string{"credentials-unreadable"}, ""},
		"a broken store":                    {"[credentials]\nstore = '" + broken + "'\n", []string{"credentials-unreadable"}, ""},
		"a cache in a new folder":           {"[cache]\ndir = '" + dir + "/a/b'\n", nil, ""},
		"a cache in a file":                 {"[cache]\ndir = '" + logins + "/b'\n", []string{"cache-unwritable"}, ""},
		"users of the site":                 {"[site]\nusers = '" + people + "'\n", nil, ""},
		"users of the site that are none":   {"[site]\nusers = '" + noPEM + "'\n", []string{"site-users-unreadable"}, ""},
		"users of the site that are gone":   {"[site]\nusers = '/etc/nonexistent/users'\n", []string{"site-users-unreadable"}, ""},
		"a cache that is a file":            {"[cache]\ndir = '" + logins + "'\n", []string{"cache-unwritable"}, ""},
		"a helper that is not installed":    {"[credentials]\nhelpers = ['a.b=nonexistent']\n", []string{"helper-missing"}, ""},
		"keys of the shared store":          {shared + "credentials = '" + keys + "'\n", nil, ""},
		"missing keys of the shared store":  {shared + "credentials = '/etc/nonexistent/keys'\n", []string{"shared-store-refused"}, ""},
		"a file without keys":               {shared + "credentials = '" + noPEM + "'\n", []string{"shared-store-refused"}, ""},
		"the shared store's certificate":    {shared + "credentials = '" + keys + "'\nca = '" + pem + "'\n", nil, ""},
		"a missing one of it":               {shared + "ca = '/etc/nonexistent/ca.pem'\n", []string{"shared-store-unusable"}, ""},
		"the ACME server's certificate":     {"[site]\nacme_ca = '" + pem + "'\n", nil, ""},
		"a missing one of that":             {"[site]\nacme_ca = '/etc/nonexistent/ca.pem'\n", []string{"site-certificate-unreadable"}, ""},
		"no cache":                          {"[cache]\ndir = ''\n", nil, ""},
	} {
		if !strings.Contains(tt.text, "[cache]") {
			tt.text += "[cache]\ndir = '" + dir + "'\n"
		}
		if !strings.Contains(tt.text, "[credentials]") {
			tt.text += "[credentials]\nstore = '/etc/nonexistent/store.json'\n"
		} else if !strings.Contains(tt.text, "store") {
			tt.text = strings.Replace(tt.text, "[credentials]\n", "[credentials]\nstore = '/etc/nonexistent/store.json'\n", 1)
		}
		c, err := config.Source{}.Parse([]byte(tt.text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		problems, err := Check(c, "test")
		if (err != nil) != (tt.refuses != "") || err != nil && !strings.Contains(err.Error(), tt.refuses) {
			t.Errorf("%s: error %v", name, err)
		}
		var codes []string
		for _, p := range problems {
			codes = append(codes, string(p.Code))
			if p.Hint == "" || strings.Contains(p.Error(), "bWU6") {
				t.Errorf("%s: %v", name, p)
			}
		}
		if !slices.Equal(codes, tt.codes) {
			t.Errorf("%s: problems %v", name, problems)
		}
	}
}
