package auth

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

type served struct{}

func (served) Serves(name string) bool      { return name == "docker.io" || name == "ghcr.io" }
func (served) ByHost(string) (string, bool) { return "", false }
func (served) Default() string              { return "docker.io" }

func TestCompleteScopes(t *testing.T) {
	for _, tt := range []struct {
		name     string
		scopes   []string
		registry string
		want     []string
	}{
		{"completed", []string{"repository:busybox:pull"}, "docker.io", []string{"repository:library/busybox:pull"}},
		{"two that are one (ciiiii#79)", []string{"repository:library/nginx:pull", "repository:nginx:pull"}, "docker.io", []string{"repository:library/nginx:pull"}},
		{"in one parameter", []string{"repository:a:pull repository:b:pull"}, "docker.io", []string{"repository:library/a:pull", "repository:library/b:pull"}},
		{"narrowed to pull", []string{"repository:o/i:pull,push"}, "docker.io", []string{"repository:o/i:pull"}},
		{"push alone", []string{"repository:o/i:push"}, "docker.io", nil},
		{"catalog", []string{"registry:catalog:*"}, "docker.io", nil},
		{"prefixed", []string{"repository:ghcr.io/o/i:pull"}, "ghcr.io", []string{"repository:o/i:pull"}},
		{"none", nil, "docker.io", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			registry, got, err := CompleteScopes("docker.io", tt.scopes, served{}, true)
			if err != nil || registry != tt.registry || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s %v %v", registry, got, err)
			}
		})
	}
}

func TestScopesThatAreRefused(t *testing.T) {
	many := strings.Fields(strings.Repeat("repository:a:pull ", 3))
	for i := range maxScopes + 1 {
		many = append(many, "repository:a"+strings.Repeat("a", i)+":pull")
	}
	for name, tt := range map[string]struct {
		scopes []string
		code   oci.Code
	}{
		"two registries":   {[]string{"repository:ghcr.io/o/i:pull", "repository:docker.io/o/i:pull"}, oci.BadRequest},
		"unknown registry": {[]string{"repository:evil.example/o/i:pull"}, oci.RegistryUnknown},
		"malformed":        {[]string{"pull"}, oci.BadRequest},
		"too many":         {many, oci.BadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			_, got, err := CompleteScopes("docker.io", tt.scopes, served{}, true)
			if !errors.Is(err, &oci.Error{Code: tt.code}) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func FuzzCompleteScopes(f *testing.F) {
	f.Add("repository:busybox:pull repository:ghcr.io/o/i:pull,push")
	f.Fuzz(func(t *testing.T, scope string) {
		_, got, err := CompleteScopes("docker.io", []string{scope}, served{}, true)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, s := range got {
			if seen[s] || !strings.HasPrefix(s, "repository:") || !strings.HasSuffix(s, ":pull") || len(strings.Fields(s)) != 1 {
				t.Fatalf("%q gives %q", scope, got)
			}
			seen[s] = true
		}
	})
}
