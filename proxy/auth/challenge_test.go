package auth

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func challenges(values ...string) http.Header { return http.Header{"Www-Authenticate": values} }

func TestChallengesAreReadAsLists(t *testing.T) {
	bearer := func(params ...string) Challenge {
		c := Challenge{"bearer", map[string]string{}}
		for i := 0; i < len(params); i += 2 {
			c.Params[params[i]] = params[i+1]
		}
		return c
	}
	basic := Challenge{"basic", map[string]string{"realm": "r"}}
	for _, tt := range []struct {
		name   string
		header http.Header
		want   []Challenge
	}{
		{"none", challenges(), nil},
		{"Docker Hub's", challenges(`Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`),
			[]Challenge{bearer("realm", "https://auth.docker.io/token", "service", "registry.docker.io")}},
		{"case and spaces", challenges(`BEARER  Realm = "https://a/t" ,  SERVICE = s`), []Challenge{bearer("realm", "https://a/t", "service", "s")}},
		{"comma in quotes", challenges(`Bearer realm="https://a/t",scope="repository:a:pull,push"`),
			[]Challenge{bearer("realm", "https://a/t", "scope", "repository:a:pull,push")}},
		{"quoted pairs", challenges(`Bearer realm="https://a/\"t\""`), []Challenge{bearer("realm", `https://a/"t"`)}},
		{"two in one header", challenges(`Basic realm="r", Bearer realm="https://a/t"`), []Challenge{basic, bearer("realm", "https://a/t")}},
		{"two headers", challenges(`Basic realm="r"`, `Bearer realm="https://a/t"`), []Challenge{basic, bearer("realm", "https://a/t")}},
		{"scheme alone", challenges("Negotiate, Basic realm=r"), []Challenge{{"negotiate", map[string]string{}}, basic}},
		{"token68", challenges("Negotiate abc/+==, Basic realm=r"), []Challenge{{"negotiate", map[string]string{}}, basic}},
		{"empty elements", challenges(`, ,Basic realm="r",,`), []Challenge{basic}},
		// What containerd accepts beyond RFC 9110.
		{"trailing semicolon", challenges(`Basic realm="r";`), []Challenge{basic}},
		{"semicolons between", challenges(`Bearer realm="https://a/t"; service="s" ;`), []Challenge{bearer("realm", "https://a/t", "service", "s")}},
		{"host and port unquoted", challenges(`Bearer realm="https://a/t",service=r.example:5000,scope=x`),
			[]Challenge{bearer("realm", "https://a/t", "service", "r.example:5000", "scope", "x")}},
		{"URL unquoted", challenges(`Bearer realm=https://r.example:5000/t?x=y, service=s`), []Challenge{bearer("realm", "https://r.example:5000/t?x=y", "service", "s")}},
		{"IPv6 unquoted", challenges(`Bearer realm=https://[::1]:5000/t`), []Challenge{bearer("realm", "https://[::1]:5000/t")}},
		{"same parameter twice", challenges(`Bearer realm="https://a/t",service="s",REALM="https://a/t",service=s`),
			[]Challenge{bearer("realm", "https://a/t", "service", "s")}},
		{"two scopes", challenges(`Bearer realm="https://a/t",scope="repository:a:pull",scope="repository:b:pull"`),
			[]Challenge{bearer("realm", "https://a/t", "scope", "repository:a:pull")}},
		{"a malformed value next to a Bearer one", challenges(`Basic realm="r`, `Bearer realm="https://a/t"`), []Challenge{bearer("realm", "https://a/t")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseChallenges(tt.header)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestChallengesThatAreRefused(t *testing.T) {
	for name, value := range map[string]string{
		"two realms":              `Bearer realm="https://a/t",realm="https://evil/t"`,
		"two realms, other case":  `Bearer realm="https://a/t",REALM="https://evil/t"`,
		"two realms, one bare":    `Bearer realm="https://a/t";realm=https://evil/t`,
		"two services":            `Bearer realm="https://a/t",service="a",service="b"`,
		"malformed next to Basic": `Bearer realm="https://a/t`,
		"unterminated":            `Bearer realm="https://a/t`,
		"unterminated pair":       `Bearer realm="https://a/t\`,
		"no scheme":               `realm="https://a/t"`,
		"too long":                `Bearer realm="` + strings.Repeat("a", maxChallenge) + `"`,
		"not a token":             `Bearer realm="https://a/t", (`,
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseChallenges(challenges(value)); err == nil {
				t.Errorf("read as %v", got)
			}
		})
	}
}

func TestBearerIsPreferredAndHasOneRealm(t *testing.T) {
	for _, tt := range []struct {
		name, header, want string
		fails              bool
	}{
		{"basic first", `Basic realm="r", Bearer realm="https://a/t"`, "bearer", false},
		{"basic alone", `Basic realm="r"`, "basic", false},
		{"neither", `Negotiate`, "", false},
		{"two realms", `Bearer realm="https://a/t", Bearer realm="https://b/t"`, "", true},
		{"no realm", `Bearer service="s"`, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all, err := ParseChallenges(challenges(tt.header))
			if err != nil {
				t.Fatal(err)
			}
			got, err := choose(all)
			if (err != nil) != tt.fails {
				t.Fatal(err)
			}
			scheme := ""
			if got != nil {
				scheme = got.Scheme
			}
			if scheme != tt.want {
				t.Errorf("chose %q, want %q", scheme, tt.want)
			}
		})
	}
}

// FuzzParseChallenges: what comes out, written again in the plainest way, is read as
// the same.
func FuzzParseChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`)
	f.Add(`Negotiate abc==, Basic realm = r, BEARER a="\"",b=`)
	f.Fuzz(func(t *testing.T, header string) {
		got, err := ParseChallenges(challenges(header))
		if err != nil {
			return
		}
		var b strings.Builder
		for i, c := range got {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(c.Scheme)
			sep := " "
			for k, v := range c.Params {
				fmt.Fprintf(&b, `%s%s="%s"`, sep, k, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v))
				sep = ","
			}
		}
		if b.Len() > maxChallenge {
			return
		}
		again, err := ParseChallenges(challenges(b.String()))
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("%q is %v; %q is %v, %v", header, got, b.String(), again, err)
		}
	})
}
