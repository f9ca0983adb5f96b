package main

import (
	"testing"

	"github.com/sidemirror/sidemirror/daemon/config"
)

func TestMisspeltRegistriesAreRecognized(t *testing.T) {
	named := "[registry.'registry.corp.example:5000']\n"
	for _, tt := range []struct{ file, registry, want string }{
		{"", "ghcr.oi", "ghcr.io"},
		{"", "gchr.io", "ghcr.io"},
		{"", "registy.k8s.io", "registry.k8s.io"},
		{"", "ghcr.io", ""},
		{"[registry.'*']\nenabled = false\n", "mcr.microsft.com", ""}, // it would not be served
		{"", "harbor.example", ""},
		{named, "registry.crop.example:5000", "registry.corp.example:5000"},
		{named, "registry.corp.example:500", "registry.corp.example:5000"},
		{"", "mcr.microsft.com", "mcr.microsoft.com"},
		{"", "mcr.microsoft.com", ""},
		{"", "qauy.io", "quay.io"},
		{"", "harbor.example", ""},
	} {
		c, err := config.Load(configFile(t, tt.file), nil)
		if err != nil {
			t.Fatal(err)
		}
		want := tt.want
		if want != "" {
			want = `did you mean "` + want + `"?`
		}
		for what, names := range map[string][]string{"pull": registryNames(c), "login": loginNames(c)} {
			if got := didYouMeanRegistry(c, tt.registry, names); got != want {
				t.Errorf("%s, %q: %q gives the hint %q, want %q", what, tt.file, tt.registry, got, want)
			}
		}
	}
}
