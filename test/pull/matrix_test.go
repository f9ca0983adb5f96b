package pull_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/registry"
)

// mode is whose credentials open the registry.
type mode struct {
	name    string
	private bool   // else anybody may pull
	auth    string // client_auth; empty is the default
	clients bool   // the clients have the login, else the daemon has it
}

var modes = []mode{
	{name: "anonymous"},
	{name: "daemon", private: true},
	{name: "relay", private: true, auth: "relay", clients: true},
	{name: "auto", private: true, clients: true},
}

var shapes = []struct {
	name string
	registry.Shape
}{
	{"oci-index", registry.Shape{Index: true, Size: 1 << 16}},
	{"oci-single", registry.Shape{Size: 1 << 16}},
	{"docker-index", registry.Shape{Index: true, Docker: true, Size: 1 << 16}},
	{"docker-single", registry.Shape{Docker: true, Size: 1 << 16}},
}

// Every client must get, through us, exactly the bytes that the registry has, and
// nothing of it past us. Each cell has an image of its own, because an engine does
// not ask again for what it has.
func TestEveryClientPullsTheSameBytesThroughUs(t *testing.T) {
	engine.NeedRoot(t)
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			upstream := registry.Start(t, registry.Options{Private: m.private})
			s := newStage(t, m, upstream)
			for _, c := range clients {
				t.Run(c.name, func(t *testing.T) {
					for _, shape := range shapes {
						for _, form := range []string{"tag", "digest", "tag@digest"} {
							if form == "tag@digest" && !c.both {
								continue
							}
							t.Run(shape.name+"/"+form, func(t *testing.T) {
								repository := fmt.Sprintf("alice/%s-%s-%s", c.name, shape.name, strings.ReplaceAll(form, "@", "-"))
								image := upstream.Push(t, repository, "v1", shape.Shape)
								pullThroughUs(t, s, upstream, c, image, form)
							})
						}
					}
				})
			}
		})
	}
}

// newStage starts sidemirror before a registry, has it configure a host tree, and
// starts engines that read that tree.
func newStage(t *testing.T, m mode, upstream *registry.Registry) *stage {
	t.Helper()
	o := harness.Options{}
	var realms []string
	if m.private {
		realms = []string{upstream.Realm}
		o.Secrets = []string{upstream.Password}
	}
	for _, served := range []string{name, "docker.io"} {
		o.Registries = append(o.Registries, harness.Registry{
			Name: served, Upstreams: []string{upstream.URL.String()}, Realms: realms, ClientAuth: m.auth,
		})
		if m.private && !m.clients {
			if o.Logins == nil {
				o.Logins = map[string]string{}
			}
			o.Logins[served] = upstream.User + ":" + upstream.Password
		}
	}
	s := &stage{sidemirror: harness.Start(t, o)}
	if m.clients {
		s.login = upstream
	}
	h := newHost(t, s.sidemirror)
	h.run(t, "apply")
	s.containerd = engine.StartContainerd(t, h.certs())
	s.docker = engine.StartDocker(t, engine.DockerOptions{Config: h.docker()})
	return s
}

// pullThroughUs pulls and checks that every byte of the image is there, that the access log has a
// line for each part, and that only sidemirror asked the registry.
func pullThroughUs(t *testing.T, s *stage, upstream *registry.Registry, c client, image registry.Image, form string) {
	t.Helper()
	suffix := map[string]string{
		"tag":        ":" + image.Tag,
		"digest":     "@" + image.Digest,
		"tag@digest": ":" + image.Tag + "@" + image.Digest,
	}[form]
	all, ours := upstream.Requests("/v2/" + image.Repository + "/")
	others := all - ours
	got, want := c.pull(t, s, image, suffix)
	for _, digest := range want {
		if !got[digest] {
			t.Errorf("%s has nothing whose digest is %s", c.name, digest)
		}
	}
	if lines := accessLines(s.sidemirror.Log(), image.Repository); lines < len(want) {
		t.Errorf("sidemirror's access log has %d lines about %s, which has %d parts", lines, image.Repository, len(want))
	}
	all, ours = upstream.Requests("/v2/" + image.Repository + "/")
	if ours == 0 {
		t.Errorf("sidemirror asked the registry for nothing of %s", image.Repository)
	}
	if all-ours != others {
		t.Errorf("%d requests for %s reached the registry past sidemirror", all-ours-others, image.Repository)
	}
}

// accessLines counts the lines of our access log about a repository.
func accessLines(log, repository string) int {
	count := 0
	for line := range strings.Lines(log) {
		if strings.Contains(line, "msg=request ") && strings.Contains(line, " repository="+repository+" ") {
			count++
		}
	}
	return count
}
