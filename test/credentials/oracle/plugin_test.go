package oracle

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	credentialprovider "k8s.io/kubernetes/pkg/credentialprovider"
	execplugin "k8s.io/kubernetes/pkg/credentialprovider/plugin"

	"github.com/sidemirror/sidemirror/proxy/credential/kubelet"
	"github.com/sidemirror/sidemirror/proxy/credential/program"
)

// pluginCase is a plugin: for which images it is, and what it returns. The images are asked for one
// after the other, so that it shows which answers are used again.
type pluginCase struct {
	match, keyType, duration string
	auth                     []string // patterns, each with a username of its own
	images                   []string
}

// pluginCases have hosts of their own, since the kubelet asks all plugins about each image.
func pluginCases() (list []pluginCase) {
	for _, keyType := range []string{"Image", "Registry", "Global"} {
		for _, duration := range []string{`"1h"`, `"0s"`, "null"} {
			n := len(list)
			host := func(name string) string { return fmt.Sprintf("%s.h%d.test", name, n) }
			list = append(list, pluginCase{
				match: "*." + host("")[1:], keyType: keyType, duration: duration, auth: []string{"*." + host("")[1:]},
				images: []string{host("a") + "/x", host("a") + "/x", host("a") + "/y", host("b") + "/x", host("a") + "/x", host("b") + "/y/z"},
			})
		}
	}
	one := func(match string, auth, images []string) {
		n := len(list)
		with := func(texts []string) (out []string) {
			for _, text := range texts {
				out = append(out, strings.ReplaceAll(text, "HOST", fmt.Sprintf("h%d.test", n)))
			}
			return out
		}
		list = append(list, pluginCase{with([]string{match})[0], "Image", `"1h"`, with(auth), with(images)})
	}
	one("HOST", []string{"HOST"}, []string{"HOST/a", "HOST:5000/a", "x.HOST/a", "HOST"})
	one("HOST:5000", []string{"HOST:5000"}, []string{"HOST:5000/a", "HOST/a", "HOST:5001/a"})
	one("HOST/team", []string{"HOST/team", "HOST"}, []string{"HOST/team/a", "HOST/teams", "HOST/other", "HOST/tea"})
	one("*.HOST", []string{"a.HOST", "*.HOST"}, []string{"a.HOST/x", "b.HOST/x", "a.b.HOST/x", "HOST/x"})
	one("*.HOST", []string{"*.HOST/team", "a.HOST"}, []string{"a.HOST/team/x", "a.HOST/x", "b.HOST/team", "b.HOST/x"})
	one("HOST", []string{"HOST/a", "HOST/a/b"}, []string{"HOST/a/b/c", "HOST/a/c", "HOST/b"})
	one("HOST", []string{"https://HOST/v1/", "HOST/a"}, []string{"HOST/b", "HOST/a"})
	one("HOST", []string{"other.test"}, []string{"HOST/a", "HOST/b"})
	one("HOST", nil, []string{"HOST/a", "HOST/a"})
	one("a*.HOST", []string{"a*.HOST"}, []string{"ab.HOST/x", "a.HOST/x", "ba.HOST/x"})
	return list
}

// pluginRig is a folder with a plugin for each case, and how often each was asked for what.
type pluginRig struct{ dir, config, asked string }

func newPluginRig(t *testing.T, cases []pluginCase) pluginRig {
	t.Helper()
	rig := pluginRig{dir: t.TempDir(), asked: filepath.Join(t.TempDir(), "asked")}
	rig.config = filepath.Join(t.TempDir(), "config.yaml")
	config := "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n"
	for n, c := range cases {
		var auth []string
		for i, pattern := range c.auth {
			auth = append(auth, fmt.Sprintf(`%q:{"username":"u%d","password":"p"}`, pattern, i))
		}
		answer := fmt.Sprintf(`{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":%q,"cacheDuration":%s,"auth":{%s}}`,
			c.keyType, c.duration, strings.Join(auth, ","))
		name := fmt.Sprintf("plugin-%d", n)
		script := fmt.Sprintf("#!/bin/sh\nsed 's/.*\"image\":\"\\([^\"]*\\)\".*/%s \\1/' >>%s\necho '%s'\n", name, rig.asked, answer)
		if err := os.WriteFile(filepath.Join(rig.dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		config += fmt.Sprintf("  - name: %s\n    matchImages: [%q]\n    defaultCacheDuration: 1h\n    apiVersion: credentialprovider.kubelet.k8s.io/v1\n", name, c.match)
	}
	if err := os.WriteFile(rig.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return rig
}

// runs returns what the plugins were asked since the last call.
func (r pluginRig) runs(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(r.asked)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	_ = os.Remove(r.asked)
	return strings.Join(strings.Fields(string(data)), " ")
}

// The kubelet's own client of plugins, of the version in go.mod.
func TestPluginsAreAskedAndTheirAnswersUsedAsByTheKubelet(t *testing.T) {
	cases := pluginCases()
	theirs, ours := newPluginRig(t, cases), newPluginRig(t, cases)
	if err := execplugin.RegisterCredentialProviderPlugins(theirs.config, theirs.dir, nil, nil); err != nil {
		t.Fatal(err)
	}
	plugins := kubelet.New(ours.config, program.NewRunner([]string{ours.dir}, []string{"PATH=/usr/bin:/bin"}))
	defer plugins.Close()
	found, runs := 0, 0
	for n, c := range cases {
		for _, image := range c.images {
			var keyring credentialprovider.DockerKeyring = execplugin.NewExternalCredentialProviderDockerKeyring("", "", "", "")
			want := ""
			if list, ok := keyring.Lookup(image); ok && len(list) > 0 {
				want = list[0].Username
				found++
			}
			registry, repository, _ := strings.Cut(image, "/")
			got, err := plugins.Lookup(t.Context(), registry, repository)
			if err != nil {
				t.Errorf("case %d, %s: %v", n, image, err)
			}
			if got.Username != want {
				t.Errorf("case %d, %s with the keys %q: user %q, and of the kubelet's %q", n, image, c.auth, got.Username, want)
			}
			theirRuns, ourRuns := theirs.runs(t), ours.runs(t)
			if ourRuns != theirRuns {
				t.Errorf("case %d, %s, %s for %s: plugins were asked %q, and by the kubelet %q", n, image, c.keyType, c.duration, ourRuns, theirRuns)
			}
			if theirRuns != "" {
				runs++
			}
		}
	}
	t.Logf("%d plugins, %d logins found, %d runs", len(cases), found, runs)
	if found < 40 || runs < 40 {
		t.Error("too few for a comparison")
	}
}
