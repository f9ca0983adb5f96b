package hosts_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/registry"
)

// eachTools runs a test with the tools of each age.
func eachTools(t *testing.T, files map[string]string, test func(t *testing.T, r *rig)) {
	t.Helper()
	for _, age := range []engine.Generation{engine.Bookworm, engine.TrixieTools} {
		t.Run(string(age), func(t *testing.T) { test(t, newToolsRig(t, age, files)) })
	}
}

// podmanPulls pulls a new image by podman, under the name that reference makes of its repository.
func (r *rig) podmanPulls(t *testing.T, reference func(repository, digest string) string) by {
	t.Helper()
	return r.pulled(t, func(repository, digest string) error { return r.pullBy(t, tools[0], reference(repository, digest)) })
}

// An administrator's aliases and search registries mean the same after apply, and lead through
// sidemirror.
func TestPodmanPullsShortNamesThroughSidemirror(t *testing.T) {
	eachTools(t, map[string]string{"/etc/containers/registries.conf": "unqualified-search-registries = [\"docker.io\"]\n"}, func(t *testing.T, r *rig) {
		r.do(t, 0, "apply")
		if got := r.podmanPulls(t, func(repository, _ string) string { return repository + ":v1" }); got != viaSidemirror {
			t.Errorf("a name without a registry is pulled %s", got)
		}
		got := r.podmanPulls(t, func(repository, _ string) string {
			alias := strings.ReplaceAll(repository, "/", "-")
			r.put(t, map[string]string{"/etc/containers/registries.conf.d/100-aliases.conf": fmt.Sprintf("[aliases]\n%q = \"%s/%s\"\n", alias, otherName, repository)})
			return alias + ":v1"
		})
		if got != viaSidemirror {
			t.Errorf("an alias is pulled %s", got)
		}
	})
}

// A registry that the administrator blocks stays blocked, and sidemirror is not asked for it.
func TestPodmanPullsNothingFromABlockedRegistry(t *testing.T) {
	eachTools(t, map[string]string{
		"/etc/containers/registries.conf": "[[registry]]\nprefix = \"reg.test\"\nlocation = \"reg.test\"\nblocked = true\n" +
			"[[registry]]\nprefix = \"docker.io/alice\"\nlocation = \"docker.io/alice\"\nblocked = true\n",
	}, func(t *testing.T, r *rig) {
		for _, when := range []string{"before apply", "after apply"} {
			for _, one := range tools {
				for _, reference := range []string{otherName + "/alice/blocked:v1", hubName + "/alice/blocked:v1"} {
					if err := r.pullBy(t, one, reference); err == nil || !strings.Contains(err.Error(), "blocked") {
						t.Errorf("%s %s pulls %s with %v", when, one.name, reference, err)
					}
				}
			}
			r.do(t, 0, "apply")
		}
		if n := r.asked("alice/blocked"); n > 0 {
			t.Errorf("sidemirror had %d requests", n)
		}
		// What is not blocked is mirrored: the rest of Docker Hub.
		image := "bob/open"
		r.upstream.Push(t, image, "v1", registry.Shape{Size: 1 << 12})
		if err := r.pullBy(t, tools[0], hubName+"/"+image+":v1"); err != nil || r.asked(image) == 0 {
			t.Errorf("podman pulls %s with %v, and sidemirror had %d requests", image, err, r.asked(image))
		}
	})
}

// With mirror-by-digest-only the registry itself decides what a tag is. The images come from the mirrors.
func TestPodmanAsksSidemirrorForDigestsAloneIfTheAdministratorWantsThat(t *testing.T) {
	eachTools(t, map[string]string{
		"/etc/containers/registries.conf": "[[registry]]\nprefix = \"reg.test\"\nlocation = \"reg.test\"\nmirror-by-digest-only = true\n",
	}, func(t *testing.T, r *rig) {
		r.do(t, 0, "apply")
		if got := r.podmanPulls(t, func(repository, _ string) string { return otherName + "/" + repository + ":v1" }); got != direct {
			t.Errorf("a tag is pulled %s", got)
		}
		if got := r.podmanPulls(t, func(repository, digest string) string { return otherName + "/" + repository + "@" + digest }); got != viaSidemirror {
			t.Errorf("a digest is pulled %s", got)
		}
		if got := r.podmanPulls(t, func(repository, _ string) string { return hubName + "/" + repository + ":v1" }); got != viaSidemirror {
			t.Errorf("a tag of another registry is pulled %s", got)
		}
	})
}
