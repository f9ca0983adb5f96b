package siteconfig

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/sidemirror/sidemirror/internal/problem"
)

var wanted = []Setting{
	{Table: []string{"registry", "docker.io"}, Key: "hosts", Value: []string{"docker.example.com"}},
	{Table: []string{"site"}, Key: "acme_accept_terms", Value: true},
	{Table: []string{"site"}, Key: "acme_email", Value: "admin@example.com"},
}

// files are configurations into which the settings can be added.
var files = []string{
	"",
	"\n",
	"# a comment\n#[site]\n",
	"# no line end",
	"listen = ['127.0.0.1:305']\n\n[cache]\nmax_size = \"5GiB\"",
	"[site]\nallow = [\"10.0.0.0/8\"]\n\n[log]\nlevel = 'warn'\n",
	"[site]",
	"[registry.\"docker.io\"] # the Hub\nclient_auth = \"relay\"\n[site] # mine\n",
	"[registry.'docker.io']\r\nclient_auth = \"relay\"\r\n[log]\r\nlevel = 'warn'\r\n",
	"[registry.\"docker.io\"]\n[registry.\"ghcr.io\"]\nhosts = ['ghcr.example.com']\n",
	"text = '''\n[site]\n'''\n",
}

func TestRemovingWhatWasAddedGivesTheFileBackToTheByte(t *testing.T) {
	for _, before := range files {
		added, err := Add([]byte(before), wanted)
		if err != nil {
			t.Errorf("%q: %v", before, err)
			continue
		}
		var got struct {
			Registry map[string]struct{ Hosts []string }
			Site     struct {
				Terms bool   `toml:"acme_accept_terms"`
				Email string `toml:"acme_email"`
			}
		}
		if err := toml.Unmarshal(added, &got); err != nil {
			t.Errorf("%q became\n%s\n%v", before, added, err)
			continue
		}
		if hosts := got.Registry["docker.io"].Hosts; fmt.Sprint(hosts) != "[docker.example.com]" || !got.Site.Terms || got.Site.Email != "admin@example.com" {
			t.Errorf("%q became\n%s\nwhich means %+v", before, added, got)
		}
		if after := Remove(added); string(after) != before {
			t.Errorf("%q came back as %q", before, after)
		}
		if again := Remove([]byte(before)); string(again) != before {
			t.Errorf("%q has nothing to remove, and became %q", before, again)
		}
	}
}

func TestOtherChangesStayWhenTheLinesAreRemoved(t *testing.T) {
	added, err := Add([]byte("[log]\nlevel = 'warn'\n"), wanted)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(added, []byte("'warn'"), []byte("'debug'"), 1)
	if got := string(Remove(append(changed, "[cache]\n"...))); got != "[log]\nlevel = 'debug'\n[cache]\n" {
		t.Errorf("%q", got)
	}
}

func TestKeyThatIsSetIsNotSetAgain(t *testing.T) {
	_, err := Add([]byte("[log]\n[registry.\"docker.io\"]\nhosts = ['other.example.com']\n"), wanted)
	p, ok := errors.AsType[*problem.Problem](err)
	if !ok || p.Line != 3 || !strings.Contains(p.Hint, `hosts = ["docker.example.com"]`) {
		t.Errorf("%v", err)
	}
}

func TestUsersThatWereAddedAreFoundInAnyFile(t *testing.T) {
	for _, before := range files {
		if s, found := Users([]byte(before)); found {
			t.Errorf("%q: found %+v", before, s)
		}
		for _, path := range []string{"/etc/sidemirror/site.htpasswd", `/srv/a "b"\c # d/ü`} {
			added, err := Add([]byte(before), []Setting{UsersAre(path)})
			if err != nil {
				t.Errorf("%q: %v", before, err)
				continue
			}
			for _, file := range [][]byte{added, append([]byte("[[ faulty\n"), added...), bytes.ReplaceAll(added, []byte("\n"), []byte("\r\n"))} {
				if s, found := Users(file); !found || s.Value != path {
					t.Errorf("%q: %+v, %v", file, s, found)
				}
			}
			if after := Remove(added); string(after) != before {
				t.Errorf("%q came back as %q", before, after)
			}
		}
	}
	if s, found := Users([]byte("[site]\nusers = \"/srv/mine\"\n")); found {
		t.Errorf("a person's own setting is taken for an added one: %+v", s)
	}
}

func TestLinesOfAFormerVersionAreRemoved(t *testing.T) {
	for _, before := range files {
		added, err := Add([]byte(before), wanted)
		if err != nil {
			t.Fatal(err)
		}
		former := bytes.ReplaceAll(added, []byte(mark), []byte(formerMark))
		if after := Remove(former); string(after) != before {
			t.Errorf("%q came back as %q", before, after)
		}
	}
}

func FuzzRemove(f *testing.F) {
	for _, file := range files {
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, before []byte) {
		if len(before) > 64<<10 || bytes.Contains(before, []byte(mark)) || bytes.Contains(before, []byte(formerMark)) || toml.Unmarshal(before, new(map[string]any)) != nil {
			return
		}
		if s, found := Users(before); found {
			t.Errorf("%q has no mark, and %+v was found", before, s)
		}
		added, err := Add(before, wanted)
		if err != nil || toml.Unmarshal(added, new(map[string]any)) != nil {
			return // such as a table that is an inline table; the caller checks the whole
		}
		if after := Remove(added); !bytes.Equal(after, before) {
			t.Errorf("%q became %q and came back as %q", before, added, after)
		}
	})
}
