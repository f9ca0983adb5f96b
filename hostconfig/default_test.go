package hostconfig

import (
	"os"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/certtest"
	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	containerdCerts = "/etc/containerd/certs.d/"
	dockerCerts     = "/etc/docker/certs.d/"
	defaultHosts    = containerdCerts + "_default/hosts.toml"
)

func anyOf(name string, registries ...string) engine.Desired {
	return engine.Desired{Mirror: ourURL, Registries: registries, Any: true, Engines: []string{name}}
}

// note returns the note or problem with a code, or nil.
func (p Plan) note(code problem.Code) *problem.Problem {
	for _, e := range p.Engines {
		for _, n := range append(append([]*problem.Problem{}, e.Notes...), e.Problems...) {
			if n.Code == code {
				return n
			}
		}
	}
	return nil
}

func TestEveryRegistryGoesThroughSidemirrorByTheDefaultFolder(t *testing.T) {
	h := host(t, map[string]string{"/etc/containerd/": ""})
	before := h.snapshot(t)
	h.apply(t, anyOf(engine.Containerd, "docker.io"))
	if got, want := h.get(t, defaultHosts), splice.FileMark+"\n"+ourHost; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	contains(t, h.get(t, containerdCerts+"docker.io/hosts.toml"), ourTable)
	if again := h.apply(t, anyOf(engine.Containerd, "docker.io")); len(again.Written)+len(again.Restored) != 0 {
		t.Errorf("a second apply writes %q and restores %q", again.Written, again.Restored)
	}
	// One that is named later gets a file of its own, although _default is there.
	h.apply(t, anyOf(engine.Containerd, "docker.io", "r.example"))
	contains(t, h.get(t, rHosts), ourTable)
	h.apply(t, anyOf(engine.Containerd, "docker.io"))
	h.missing(t, rHosts)

	h.apply(t, containerdOnly("docker.io", "r.example"))
	h.missing(t, defaultHosts)
	contains(t, h.get(t, rHosts), ourTable)
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestADefaultFolderOfTheUsersHasSidemirrorFirst(t *testing.T) {
	for name, text := range map[string]string{
		"a mirror":                 theirs,
		"plain HTTP as the last":   "server = \"http://registry.corp.example\"\n" + theirs,
		"a mirror that is not TLS": "[host.\"http://mirror.corp.example\"]\n  skip_verify = true\n",
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, map[string]string{defaultHosts: text})
			before := h.snapshot(t)
			h.apply(t, anyOf(engine.Containerd, "docker.io"))
			got := h.get(t, defaultHosts)
			if ours, other := strings.Index(got, ourTable), strings.Index(got, "mirror.corp.example\"]"); ours < 0 || ours > other {
				t.Errorf("got\n%s", got)
			}
			if strings.HasPrefix(text, "server") {
				contains(t, got, "server = \"http://registry.corp.example\"")
			}
			h.missing(t, containerdCerts+"docker.io/hosts.toml") // _default serves it as before, through sidemirror
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}

func TestRegistriesWithAFolderOfTheirOwnGoThroughSidemirrorToo(t *testing.T) {
	authority, _ := certtest.New(t)
	h := host(t, map[string]string{
		containerdCerts + "a.example/hosts.toml":          theirs,
		containerdCerts + "b.example_5000_/hosts.toml":    theirs,
		containerdCerts + "ca.example/ca.crt":             authority,
		containerdCerts + "broken.example/ca.crt":         "x",
		containerdCerts + "tls.example/hosts.toml":        "[host.\"https://tls.example\"]\n  skip_verify = true\n",
		containerdCerts + "server.example/hosts.toml":     "server = \"http://server.example\"\n" + theirs,
		containerdCerts + "http.example/hosts.toml":       "[host.\"http://http.example\"]\n",
		containerdCerts + "empty.example/":                "",
		containerdCerts + "localhost:5000/hosts.toml":     theirs,
		containerdCerts + "127.0.0.1:5000/hosts.toml":     theirs,
		containerdCerts + "localhost_305_/hosts.toml":     theirs,
		containerdCerts + "not a registry/hosts.toml":     theirs,
		containerdCerts + "invalid.example/hosts.toml":    "[host.",
		containerdCerts + "existing.example:5000/ca.cert": "x",
	})
	before := h.snapshot(t)
	plan := h.plan(t, anyOf(engine.Containerd))
	want := map[string]bool{defaultHosts: true}
	for _, name := range []string{"a.example", "b.example_5000_", "ca.example", "tls.example", "server.example", "http.example"} {
		want[containerdCerts+name+"/hosts.toml"] = true
	}
	for _, c := range plan.Changes {
		if !want[c.Path] {
			t.Errorf("%s would be changed to\n%s", c.Path, c.After)
		}
		delete(want, c.Path)
	}
	if len(want) > 0 || plan.note("registry-with-own-tls") == nil || len(plan.Refused) != 1 {
		t.Errorf("unchanged: %v; refused: %v", want, plan.Refused)
	}
	_, _ = h.try(t, anyOf(engine.Containerd)) // which fails for the file that is invalid
	contains(t, h.get(t, containerdCerts+"a.example/hosts.toml"), ourTable)
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestADefaultFolderDoesNotHideWhatIsInALaterFolder(t *testing.T) {
	authority, _ := certtest.New(t)
	config := "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n"
	for name, test := range map[string]struct {
		files  map[string]string
		hidden bool
	}{
		"nothing there":            {nil, false},
		"certificates":             {map[string]string{dockerCerts + "ca.example/ca.crt": authority}, false},
		"certificates, unusable":   {map[string]string{dockerCerts + "ca.example/ca.crt": "x"}, true},
		"an empty folder":          {map[string]string{dockerCerts + "ca.example/": ""}, true},
		"a hosts.toml":             {map[string]string{dockerCerts + "m.example/hosts.toml": theirs}, true},
		"a default folder":         {map[string]string{dockerCerts + "_default/hosts.toml": theirs}, true},
		"hidden by a folder":       {map[string]string{dockerCerts + "a.example/ca.crt": "x", containerdCerts + "a.example/hosts.toml": theirs}, false},
		"hidden by theirs already": {map[string]string{dockerCerts + "ca.example/ca.crt": "x", defaultHosts: theirs}, false},
		"a file":                   {map[string]string{dockerCerts + "README": "x"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/etc/containerd/config.toml": config}
			for path, text := range test.files {
				files[path] = text
			}
			h := host(t, files)
			plan := h.plan(t, anyOf(engine.Containerd, "docker.io"))
			changes := false
			for _, c := range plan.Changes {
				changes = changes || c.Path == defaultHosts
			}
			if changes == test.hidden || (plan.note("default-would-hide") != nil) != test.hidden {
				t.Errorf("changed: %t; note %v", changes, plan.note("default-would-hide"))
			}
		})
	}
}

func TestDockerHasADefaultFolderOnlyIfThatOverridesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		insecure, hosts string
		want            bool
	}{
		"nothing insecure":      {`[]`, "127.0.0.1 localhost localhost.localdomain\n::1 ip6-localhost ip6-loopback\n127.0.1.1 box box.example\n10.0.0.1 r.example\n", true},
		"loopback addresses":    {`["localhost:5000", "127.0.0.1:5000", "http://127.1.2.3"]`, "", true},
		"a network of loopback": {`["127.0.0.0/8"]`, "", false},
		"an IPv6 one":           {`["::1/128"]`, "", false},
		"a name":                {`["r.example"]`, "", false},
		"a URL":                 {`["https://r.example:5000"]`, "", false},
		"a network":             {`["10.0.0.0/8"]`, "", false},
		"an IPv6 network":       {`["fd00::/8"]`, "", false},
		"more than loopback":    {`["126.0.0.0/7"]`, "", false},
		"everything":            {`["0.0.0.0/0"]`, "", false},
		"a name at loopback":    {`[]`, "127.0.0.1 localhost registry.test\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, map[string]string{
				"/etc/docker/daemon.json": `{"insecure-registries": ` + test.insecure + `}`, "/etc/hosts": test.hosts + "192.0.2.1 registry-1.docker.io\n", "/etc/hostname": "box\n",
			})
			h.Versions = map[string]string{engine.Docker: "29.1.0"}
			before := h.snapshot(t)
			plan := h.plan(t, anyOf(engine.Docker, "docker.io"))
			if noted := plan.note("docker-default-insecure") != nil; noted == test.want {
				t.Errorf("noted: %t", noted)
			}
			h.apply(t, anyOf(engine.Docker, "docker.io"))
			if test.want {
				contains(t, h.get(t, dockerCerts+"_default/hosts.toml"), ourTable, "referrers")
			} else {
				h.missing(t, dockerCerts+"_default/hosts.toml")
			}
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}

// A folder in the first root hides that of a later one, so that it has to name the same certificates.
func TestARegistryThatIsNamedKeepsTheCertificatesOfALaterFolder(t *testing.T) {
	authority, _ := certtest.New(t)
	config := "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n"
	h := host(t, map[string]string{
		"/etc/containerd/config.toml": config, dockerCerts + "r.example/ca.crt": authority,
		dockerCerts + "m.example/hosts.toml": theirs,
	})
	before := h.snapshot(t)
	plan := h.plan(t, containerdOnly("r.example", "m.example"))
	if len(plan.Changes) != 1 || plan.Changes[0].Path != rHosts || !strings.Contains(string(plan.Changes[0].After), "ca = [\""+dockerCerts+"r.example/ca.crt\"]") {
		t.Errorf("%+v", plan.Changes)
	}
	if len(plan.Adopted) != 1 || plan.Adopted[0].From != dockerCerts+"r.example" {
		t.Errorf("adopted %+v", plan.Adopted)
	}
	if p := plan.note("registry-would-hide"); p == nil || p.Path != dockerCerts+"m.example" {
		t.Errorf("%v", p)
	}
	h.apply(t, containerdOnly("r.example"))
	h.put(t, dockerCerts+"r.example/second.crt", authority)
	h.apply(t, containerdOnly("r.example"))
	contains(t, h.get(t, rHosts), "second.crt")
	if again := h.apply(t, containerdOnly("r.example")); len(again.Written) != 0 {
		t.Errorf("written again: %v", again.Written)
	}
	if err := os.Remove(h.path(dockerCerts + "r.example/second.crt")); err != nil {
		t.Fatal(err)
	}
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}
