package hosts_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/registry"
)

// refused is the way of a build that fails after it has asked the registry itself.
const refused by = "nowhere: the registry refused it"

// buildLogin is what a person who builds has logged in to, and the ways of the builds.
type buildLogin struct {
	what   string
	logins map[string]bool // by host; false is a wrong password

	// before apply, and after it for an engine that sidemirror has configured for the registry
	before, after by
}

// The rows of BuildKit in docs/security.md. The name is the registry's, and key the one that Docker
// stores a login for it under.
func buildLogins(key string) []buildLogin {
	return []buildLogin{
		{"no login", nil, refused, refused},
		{"a login for the registry", map[string]bool{key: true}, direct, fellBack},
		{"a login for sidemirror's address", map[string]bool{listen: true}, refused, viaSidemirror},
		{"a login for each", map[string]bool{key: true, listen: true}, direct, viaSidemirror},
		{"a wrong login for sidemirror's address", map[string]bool{key: true, listen: false}, direct, fellBack},
		{"wrong logins", map[string]bool{key: false, listen: false}, refused, refused},
	}
}

// dockerLogins is config.json of a person who has logged in to hosts.
func (r *rig) dockerLogins(t *testing.T, hosts map[string]bool) string {
	t.Helper()
	type login struct {
		Auth []byte `json:"auth"` // JSON has it in base64
	}
	logins := make(map[string]login)
	for host, right := range hosts {
		password := r.upstream.Password
		if !right {
			password = "not " + password
		}
		logins[host] = login{[]byte(r.upstream.User + ":" + password)}
	}
	text, err := json.Marshal(map[string]any{"auths": logins})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// buildsAs builds from a registry with each login, and compares the ways.
func (r *rig) buildsAs(t *testing.T, when, name, key string, want func(buildLogin) by, build func(t *testing.T, repository string) error) {
	t.Helper()
	for _, login := range buildLogins(key) {
		t.Run(fmt.Sprintf("%s, %s, %s", when, name, login.what), func(t *testing.T) {
			r.put(t, map[string]string{"/root/.docker/config.json": r.dockerLogins(t, login.logins)})
			if want(login) != refused {
				got := r.pulled(t, func(repository, _ string) error { return build(t, name+"/"+repository) })
				if got != want(login) {
					t.Errorf("the build went %s, want %s", got, want(login))
				}
				return
			}
			r.images++
			repository := fmt.Sprintf("alice/image-%d", r.images)
			r.upstream.Push(t, repository, "v1", registry.Shape{Size: 1 << 12})
			if err := build(t, name+"/"+repository); err == nil {
				t.Error("the build succeeded")
			}
			if r.upstream.Refused("/v2/"+repository+"/") == 0 {
				t.Error("the engine did not ask the registry itself")
			}
		})
	}
}

const hubKey = "https://index.docker.io/v1/"

// TestABuildSendsSidemirrorTheLoginForItsAddress shows that no build is worse off after apply: what
// a login opened before, it opens afterwards.
func TestABuildSendsSidemirrorTheLoginForItsAddress(t *testing.T) {
	before := func(l buildLogin) by { return l.before }
	after := func(l buildLogin) by { return l.after }
	t.Run("buildkitd", func(t *testing.T) {
		r := newRig(t, rigOptions{generation: engine.BuildKit, own: true, tools: true})
		daemon := r.startBuildkit(t)
		r.buildsAs(t, "before apply", otherName, otherName, before, r.buildByBuildkitd)
		r.do(t, 0, "apply", "--engine", "buildkit")
		daemon.Stop()
		r.startBuildkit(t)
		r.buildsAs(t, "after apply", otherName, otherName, after, r.buildByBuildkitd)
		r.buildsAs(t, "after apply", hubName, hubKey, after, r.buildByBuildkitd)
	})
	for _, g := range engine.Generations() {
		t.Run(string(g), func(t *testing.T) {
			r := newRig(t, rigOptions{generation: g, own: true})
			r.buildsAs(t, "before apply", hubName, hubKey, before, r.buildByDocker)
			r.do(t, 0, "apply")
			r.host.StartDocker(t)
			r.buildsAs(t, "after apply", hubName, hubKey, after, r.buildByDocker)
			other := after
			if g == engine.Bookworm || g == engine.Trixie {
				other = before // Docker before 28 has mirrors for Docker Hub only
			}
			r.buildsAs(t, "after apply", otherName, otherName, other, r.buildByDocker)
		})
	}
}
