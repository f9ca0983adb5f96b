package hostconfig

import (
	"os"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/certtest"
)

const (
	theirs   = "[host.\"https://mirror.corp.example\"]\n  capabilities = [\"pull\"]\n"
	ourTable = "[host.\"http://127.0.0.1:305\"]\n"
	ourHost  = "[host.\"http://127.0.0.1:305\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	rFolder  = "/etc/containerd/certs.d/r.example"
	rHosts   = rFolder + "/hosts.toml"
)

func containerdOnly(registries ...string) engine.Desired {
	return engine.Desired{Mirror: ourURL, Registries: registries, Engines: []string{engine.Containerd}}
}

func TestAFolderOfHostsTomlIsCreatedAndRemovedAgain(t *testing.T) {
	h := host(t, map[string]string{"/etc/containerd/": ""})
	before := h.snapshot(t)
	h.apply(t, containerdOnly("r.example"))
	if got, want := h.get(t, rHosts), splice.FileMark+"\n"+ourHost; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestSidemirrorsHostComesBeforeTheOthers(t *testing.T) {
	const other = "[host.\"https://b.example\"]\n"
	text := "server = \"https://up.example\"\n\n# the mirror of our own\n" + theirs + "\n" + other
	h := host(t, map[string]string{rHosts: text})
	before := h.snapshot(t)
	h.apply(t, containerdOnly("r.example"))
	want := "server = \"https://up.example\"\n\n" + tableMark + "\n" + ourHost + "\n# the mirror of our own\n" + theirs + "\n" + other
	if got := h.get(t, rHosts); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestASecondApplyWritesNothing(t *testing.T) {
	h := host(t, map[string]string{rHosts: theirs})
	h.apply(t, containerdOnly("r.example", "docker.io"))
	result := h.apply(t, containerdOnly("r.example", "docker.io"))
	if len(result.Written) != 0 {
		t.Errorf("wrote %q again", result.Written)
	}
}

func TestCertificatesStayInForce(t *testing.T) {
	cert, key := certtest.New(t)
	h := host(t, map[string]string{
		rFolder + "/ca.crt": cert, rFolder + "/me.cert": cert, rFolder + "/me.key": key, rFolder + "/both.cert": cert + key, rFolder + "/notes": "x",
	})
	before := h.snapshot(t)
	h.apply(t, containerdOnly("r.example"))
	contains(t, h.get(t, rHosts), "ca = [\"ca.crt\"]\n", "client = [\"both.cert\", [\"me.cert\", \"me.key\"]]\n", ourHost)
	h.put(t, rFolder+"/second.crt", cert)
	h.apply(t, containerdOnly("r.example"))
	contains(t, h.get(t, rHosts), `ca = ["ca.crt", "second.crt"]`)
	if err := os.Remove(h.path(rFolder + "/second.crt")); err != nil {
		t.Fatal(err)
	}
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestAUsersEditsOfHostsTomlStayAfterRevert(t *testing.T) {
	for name, test := range map[string]struct{ before, edit, after string }{
		"host added to a file of ours":   {"", "OURS\n" + theirs, theirs},
		"host added to a file of theirs": {theirs, "OURS\n# new\n[host.\"https://c.example\"]\n", theirs + "\n# new\n[host.\"https://c.example\"]\n"},
		"header added to our host":       {theirs, "OURS", theirs},
		"our mark removed":               {theirs, "UNMARKED", theirs},
		"our table removed":              {theirs, theirs + "# mine\n", theirs + "# mine\n"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/etc/containerd/": ""}
			if test.before != "" {
				files[rHosts] = test.before
			}
			h := host(t, files)
			h.apply(t, containerdOnly("r.example"))
			ours := h.get(t, rHosts)
			text := strings.Replace(test.edit, "OURS", ours, 1)
			text = strings.Replace(text, "UNMARKED", strings.Replace(ours, tableMark+"\n", "", 1), 1)
			if name == "header added to our host" {
				text = strings.Replace(text, "\"resolve\"]\n", "\"resolve\"]\n  [host.\"http://127.0.0.1:305\".header]\n    x-y = \"z\"\n", 1)
			}
			h.put(t, rHosts, text)
			h.revert(t)
			got := h.get(t, rHosts)
			if strings.TrimSpace(got) != strings.TrimSpace(test.after) {
				t.Errorf("got\n%s\nwant\n%s", got, test.after)
			}
			h.missing(t, "/var")
		})
	}
}

func TestHostsTomlThatMustNotBeChanged(t *testing.T) {
	for name, test := range map[string]struct{ text, refused, noted string }{
		"8 invalid":       {"server = \"x\"\n[host.\n", rHosts + ":2: not valid TOML", ""},
		"9 BOM":           {"\xef\xbb\xbf" + theirs, "byte order mark", ""},
		"11 inline hosts": {"host = {\"https://a\" = {}}\n", "inline table", ""},
		"18 missing ca":   {"ca = \"gone.pem\"\n" + theirs, "gone.pem, which does not exist", ""},
		"18 host's ca":    {"[host.\"https://a\"]\nca = [\"gone.pem\"]\n", "gone.pem, which does not exist", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, map[string]string{rHosts: test.text})
			plan := h.plan(t, containerdOnly("r.example", "ok.example"))
			if test.refused != "" {
				contains(t, refusals(plan), test.refused)
			}
			contains(t, notes(plan), test.noted)
			_, err := h.try(t, containerdOnly("r.example", "ok.example"))
			if (err != nil) != (test.refused != "") {
				t.Errorf("error: %v", err)
			}
			if got := h.get(t, rHosts); got != test.text {
				t.Errorf("became %q", got)
			}
			h.get(t, "/etc/containerd/certs.d/ok.example/hosts.toml")
		})
	}
}

func TestLineEndsStay(t *testing.T) {
	h := host(t, map[string]string{rHosts: strings.ReplaceAll("server = \"https://s\"\n"+theirs, "\n", "\r\n")})
	before := h.snapshot(t)
	h.apply(t, containerdOnly("r.example"))
	got := h.get(t, rHosts)
	if strings.Count(got, "\n") != strings.Count(got, "\r\n") {
		t.Errorf("mixed line ends: %q", got)
	}
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestHostsInAnotherShapeAreRefused(t *testing.T) {
	const text = "host.\"https://a.example\".capabilities = [\"pull\"]\n"
	h := host(t, map[string]string{rHosts: text})
	before := h.snapshot(t)
	contains(t, refusals(h.plan(t, containerdOnly("r.example"))), rHosts+":1:", "dotted key")
	if _, err := h.try(t, containerdOnly("r.example")); err == nil {
		t.Error("no error")
	}
	if got := h.get(t, rHosts); got != text {
		t.Errorf("became %q", got)
	}
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestTheFolderThatContainerdPrefersIsUsed(t *testing.T) {
	const a, b = "/etc/containerd/certs.d/r_5000_/", "/etc/containerd/certs.d/r:5000/"
	h := host(t, map[string]string{a: "", b: ""})
	h.apply(t, containerdOnly("r:5000"))
	h.get(t, a+"hosts.toml")
	h.missing(t, b+"hosts.toml")
}

func TestADefaultFolderIsNotOverruled(t *testing.T) {
	h := host(t, map[string]string{
		"/etc/containerd/certs.d/_default/hosts.toml": theirs,
		"/etc/containerd/config.toml":                 "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n",
		"/etc/docker/certs.d/corp.example/ca.crt":     "x",
	})
	want := containerdOnly("r.example")
	want.RestartContainerd = true
	plan := h.plan(t, want)
	contains(t, notes(plan), "_default", "only this folder has corp.example")
	h.apply(t, want)
	h.missing(t, rFolder)
}

func TestSidemirrorsOwnAddressIsNoRegistry(t *testing.T) {
	h := host(t, map[string]string{"/etc/containerd/": ""})
	plan := h.plan(t, containerdOnly("127.0.0.1:305", "localhost:305", "[::1]:305"))
	if len(plan.Refused) != 3 || len(plan.Changes) != 0 {
		t.Errorf("refused %v, planned %v", plan.Refused, plan.Changes)
	}
}

func TestRegistryNamesThatAreNoFolders(t *testing.T) {
	h := host(t, map[string]string{"/etc/containerd/": ""})
	names := []string{"../x", "_default", "", ".", "..", "a/b", "a\nb", "a:b", "r_5000_", "a..b", "*", strings.Repeat("a", 256)}
	plan := h.plan(t, containerdOnly(names...))
	if len(plan.Refused) != len(names) || len(plan.Changes) != 0 {
		t.Errorf("refused %v, planned %v", plan.Refused, plan.Changes)
	}
}

func TestHostsOfADroppedRegistryAreGivenBack(t *testing.T) {
	h := host(t, map[string]string{rHosts: theirs})
	before := h.snapshot(t)
	h.apply(t, containerdOnly("r.example", "docker.io"))
	h.apply(t, containerdOnly("docker.io"))
	if got := h.get(t, rHosts); got != theirs {
		t.Errorf("got %q", got)
	}
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestHostsOfTheUsersOwnMakingWithOurAddress(t *testing.T) {
	h := host(t, map[string]string{rHosts: ourHost})
	before := h.snapshot(t)
	h.apply(t, containerdOnly("r.example"))
	sameTree(t, before, h.snapshot(t))
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestRevertWithoutAJournalGoesByOurMarks(t *testing.T) {
	h := host(t, map[string]string{
		rHosts:                    "server = \"https://s\"\n" + theirs,
		"/etc/docker/daemon.json": "{\n\t\"debug\": true\n}\n",
	})
	h.Versions[engine.Docker] = "26.1.5"
	h.apply(t, desired("r.example", "docker.io"))
	if err := os.RemoveAll(h.path("/var")); err != nil {
		t.Fatal(err)
	}
	h.revert(t)
	if got := h.get(t, "/etc/docker/daemon.json"); got != "{\n\t\"debug\": true\n}\n" {
		t.Errorf("daemon.json is %q", got)
	}
	if got := h.get(t, rHosts); got != "server = \"https://s\"\n"+theirs {
		t.Errorf("hosts.toml is %q", got)
	}
	h.missing(t, "/etc/containerd/certs.d/docker.io/hosts.toml")
}
