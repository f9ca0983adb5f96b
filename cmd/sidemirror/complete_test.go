package main

import (
	"strings"
	"testing"
)

// A person who presses the tabulator key sees no error: what cannot be read is not offered.
func TestCompletionOffersNothingThatCannotBeRead(t *testing.T) {
	bad := configFile(t, "lisen = []\n")
	none := configFile(t, "[cache]\ndir = \"/nonexistent\"\n[credentials]\nstore = \"/nonexistent/credentials.json\"\n")
	for _, args := range [][]string{
		{"--config", bad, "login", ""}, {"--config", bad, "pull", ""}, {"--config", bad, "cache", "rm", ""},
		{"--config", none, "logout", ""}, {"--config", none, "cache", "rm", ""}, {"login", "ghcr.io", ""}, {"plan", ""},
	} {
		out, _, code := invoke(t, append([]string{"__complete"}, args...)...)
		if code != 0 || !strings.HasPrefix(out, ":") {
			t.Errorf("%q: exit %d, offered %q", args, code, out)
		}
	}
}

func TestCompletionOfAListOffersEachWordOnce(t *testing.T) {
	for typed, want := range map[string]string{
		"":               "docker\ncontainerd\npodman\ncrio\nbuildkit\n",
		"docker,podman,": "docker,podman,containerd\ndocker,podman,crio\ndocker,podman,buildkit\n",
		"containerd,d":   "containerd,docker\ncontainerd,podman\ncontainerd,crio\ncontainerd,buildkit\n",
		"docker,containerd,podman,crio,buildkit,": "",
	} {
		out, _, _ := invoke(t, "__complete", "apply", "--engine", typed)
		if offered, _, _ := strings.Cut(out, ":"); offered != want {
			t.Errorf("%q: offered %q, want %q", typed, offered, want)
		}
	}
}
