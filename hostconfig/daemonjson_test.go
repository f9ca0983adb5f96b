package hostconfig

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/live"
)

const hubHosts = "/etc/docker/certs.d/docker.io/hosts.toml"

// dockerHost is a host with Docker alone, of a version.
func dockerHost(t *testing.T, version string, files map[string]string) *Host {
	h := host(t, files)
	h.Versions[engine.Docker] = version
	h.Present = []string{engine.Docker}
	return h
}

func dockerOnly() engine.Desired {
	return engine.Desired{Mirror: ourURL, Registries: []string{"docker.io"}, Engines: []string{engine.Docker}}
}

func TestDaemonJSONIsEditedAndRestored(t *testing.T) {
	for name, test := range map[string]struct{ before, after string }{
		"31 empty":           {"", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:305\"]\n}\n"},
		"31 white space":     {" \n", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:305\"]\n} \n"},
		"empty object":       {"{}", `{"registry-mirrors": ["http://127.0.0.1:305"]}`},
		"empty object, open": {"{\n}\n", "{\n  \"registry-mirrors\": [\"http://127.0.0.1:305\"]\n}\n"},
		"32 tabs and order":  {"{\n\t\"icc\": true,\n\t\"mtu\": 1450\n}\n", "{\n\t\"icc\": true,\n\t\"mtu\": 1450,\n\t\"registry-mirrors\": [\"http://127.0.0.1:305\"]\n}\n"},
		"33 mirrors":         {`{"registry-mirrors": ["https://a/", "https://b"], "debug": true}`, `{"registry-mirrors": ["http://127.0.0.1:305", "https://a/", "https://b"], "debug": true}`},
		"33 mirrors, lines":  {"{\"registry-mirrors\": [\n  \"https://a\"\n]}", "{\"registry-mirrors\": [\n  \"http://127.0.0.1:305\",\n  \"https://a\"\n]}"},
		"empty list":         {`{"registry-mirrors": [ ]}`, `{"registry-mirrors": ["http://127.0.0.1:305" ]}`},
		"34 null":            {`{"registry-mirrors": null}`, `{"registry-mirrors": ["http://127.0.0.1:305"]}`},
		"names of flags":     {`{"label": ["x"], "containerd-plugins-namespace": "p"}`, `{"label": ["x"], "containerd-plugins-namespace": "p", "registry-mirrors": ["http://127.0.0.1:305"]}`},
		"CRLF":               {"{\r\n  \"debug\": true\r\n}\r\n", "{\r\n  \"debug\": true,\r\n  \"registry-mirrors\": [\"http://127.0.0.1:305\"]\r\n}\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			h := dockerHost(t, "26.1.5", map[string]string{dockerJSON: test.before})
			before := h.snapshot(t)
			h.apply(t, dockerOnly())
			if got := h.get(t, dockerJSON); got != test.after {
				t.Errorf("got\n%s\nwant\n%s", got, test.after)
			}
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
	t.Run("30 absent", func(t *testing.T) {
		h := dockerHost(t, "20.10.24", nil)
		before := h.snapshot(t)
		h.apply(t, dockerOnly())
		h.get(t, dockerJSON)
		h.revert(t)
		sameTree(t, before, h.snapshot(t))
	})
}

func TestDaemonJSONThatMustNotBeChanged(t *testing.T) {
	for name, test := range map[string]struct{ text, says string }{
		"36 comment":          {"{\n// mine\n\"debug\": true}", "daemon.json:2: not valid JSON"},
		"36 trailing comma":   {`{"debug": true,}`, "remove the comma before it"},
		"38 unknown key":      {"{\n\n\"mirrors\": []}", `daemon.json:3: "mirrors" is no setting of dockerd`},
		"38 wrong case":       {`{"Registry-Mirrors": []}`, `write "registry-mirrors"`},
		"half-written":        {"{\"debug\": tr", "not valid JSON"},
		"no object":           {"[]", "not an object"},
		"mirrors a string":    {`{"registry-mirrors": "https://a"}`, "where dockerd expects a list"},
		"mirrors of numbers":  {`{"registry-mirrors": [1]}`, "where dockerd expects a string"},
		"nested out of bound": {strings.Repeat("[", 1<<20), "not valid JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: test.text})
			before := h.snapshot(t)
			contains(t, refusals(h.plan(t, dockerOnly())), test.says)
			if _, err := h.try(t, dockerOnly()); err == nil {
				t.Error("no error")
			}
			sameTree(t, before, h.snapshot(t))
		})
	}
}

func TestAFlagOfDockerdIsNotContradicted(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"unit": {
			"/lib/systemd/system/docker.service":                  "[Service]\nExecStart=/usr/bin/dockerd -H fd:// $DOCKER_OPTS\n",
			"/etc/systemd/system/docker.service.d/kubespray.conf": "[Service]\nEnvironment=\"DOCKER_OPTS=--registry-mirror=https://m.example --x\"\n",
		},
		"process": nil,
	} {
		for _, version := range []string{"20.10.24", "28.5.2"} {
			t.Run(name+" "+version, func(t *testing.T) {
				h := dockerHost(t, version, files)
				if name == "process" {
					running(h).docker = []string{"--registry-mirror", "https://m.example"}
				}
				contains(t, notes(h.plan(t, dockerOnly())), "started with --registry-mirror")
				h.apply(t, dockerOnly())
				h.missing(t, dockerJSON)
				if version == "28.5.2" {
					contains(t, h.get(t, hubHosts), ourHost+"\n"+tableMark+"\n[host.\"https://m.example\"]")
				}
			})
		}
	}
}

func TestModeOwnerTimeAndAttributesStay(t *testing.T) {
	h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: "{}"})
	name := h.path(dockerJSON)
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(name, 12, 34); err != nil {
			t.Fatal(err)
		}
	}
	labelled := unix.Setxattr(name, "user.label", []byte("system_u"), 0) == nil
	before := h.snapshot(t)
	h.apply(t, dockerOnly())
	now := h.snapshot(t)[dockerJSON]
	if fields := strings.Fields(before[dockerJSON]); !strings.HasPrefix(now, fields[0]+" "+fields[1]+" ") {
		t.Errorf("was %q, is %q", before[dockerJSON], now)
	}
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
	if value := make([]byte, 64); labelled {
		if n, err := unix.Getxattr(name, "user.label", value); err != nil || string(value[:n]) != "system_u" {
			t.Errorf("label %q, %v", value, err)
		}
	}
}

func TestASymbolicLinkStays(t *testing.T) {
	for _, target := range []string{"../../srv/docker.json", "/srv/docker.json"} {
		h := dockerHost(t, "20.10.24", map[string]string{"/srv/docker.json": "{}", "/etc/docker/": ""})
		if err := os.Symlink(target, h.path(dockerJSON)); err != nil {
			t.Fatal(err)
		}
		before := h.snapshot(t)
		h.apply(t, dockerOnly())
		contains(t, h.get(t, "/srv/docker.json"), ourURL)
		h.put(t, "/srv/.docker.json.sidemirror", "of a run that was killed")
		h.apply(t, dockerOnly())
		h.missing(t, "/srv/.docker.json.sidemirror")
		if got, err := os.Readlink(h.path(dockerJSON)); err != nil || got != target {
			t.Errorf("link is %q, %v", got, err)
		}
		h.revert(t)
		sameTree(t, before, h.snapshot(t))
	}
}

func TestABusyFileIsWrittenInPlace(t *testing.T) {
	const text = "{\n  \"debug\": true\n}\n"
	h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: text})
	h.step = failing("rename", dockerJSON, unix.EBUSY)
	before := h.snapshot(t)
	was := inode(t, h.path(dockerJSON))
	h.apply(t, dockerOnly())
	contains(t, h.get(t, dockerJSON), ourURL)
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
	if inode(t, h.path(dockerJSON)) != was {
		t.Error("the file was replaced")
	}
}

func TestRevertMakesDockerForgetTheMirror(t *testing.T) {
	for name, text := range map[string]string{"absent": "", "there": "{\"debug\": true}", "null": "{\"registry-mirrors\": null}"} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/etc/docker/": ""}
			if text != "" {
				files[dockerJSON] = text
			}
			h := dockerHost(t, "20.10.24", files)
			fake := running(h)
			before := h.snapshot(t)
			result := h.apply(t, dockerOnly())
			if !slices.Equal(fake.mirrors, []string{ourURL + "/"}) || !slices.Equal(result.Signals, []live.Signal{{Engine: engine.Docker, Verb: live.Reload}}) {
				t.Errorf("in force %q, told %q", fake.mirrors, result.Signals)
			}
			reloads := fake.reloads
			h.revert(t)
			if len(fake.mirrors) != 0 || fake.reloads != reloads+1 {
				t.Errorf("in force %q after %d reloads", fake.mirrors, fake.reloads-reloads)
			}
			sameTree(t, before, h.snapshot(t))
		})
	}
}

func TestOtherMirrorsStayInForceAfterRevert(t *testing.T) {
	h := dockerHost(t, "20.10.24", map[string]string{dockerJSON: `{"registry-mirrors": ["https://a"]}`})
	fake := running(h)
	before := h.snapshot(t)
	h.apply(t, dockerOnly())
	h.revert(t)
	if !slices.Equal(fake.mirrors, []string{"https://a/"}) {
		t.Errorf("in force %q", fake.mirrors)
	}
	sameTree(t, before, h.snapshot(t))
}

func TestADockerdThatDoesNotTakeItsConfigurationIsReported(t *testing.T) {
	h := dockerHost(t, "20.10.24", nil)
	running(h).deaf = errors.New("no such job")
	if _, err := h.try(t, dockerOnly()); err == nil || !strings.Contains(err.Error(), "no such job") {
		t.Errorf("error: %v", err)
	}
}

func TestALoopbackMirrorIsNeverWrittenWithoutHostsToml(t *testing.T) {
	hosts := map[string]string{"absent": "", "theirs": theirs, "broken": "[host.", "k3s": "# File generated by k3s. DO NOT EDIT.\n"}
	daemons := map[string]string{"none": "", "mirrors": `{"registry-mirrors": ["https://a"]}`, "snapshotter": `{"features": {"containerd-snapshotter": true}}`, "graph": `{"features": {"containerd-snapshotter": false}}`, "address there already": `{"registry-mirrors": ["http://127.0.0.1:305"]}`}
	for _, version := range []string{"28.0.0", "28.5.2", "29.7.2", ""} {
		for hostsName, hostsText := range hosts {
			for daemonName, daemonText := range daemons {
				t.Run(strings.Join([]string{version, hostsName, daemonName}, " "), func(t *testing.T) {
					files := map[string]string{"/etc/docker/": ""}
					if hostsText != "" {
						files[hubHosts] = hostsText
					}
					if daemonText != "" {
						files[dockerJSON] = daemonText
					}
					h := dockerHost(t, version, files)
					before := h.snapshot(t)
					h.step = func(string, string) error { return neverAlone(h) }
					_, _ = h.try(t, dockerOnly())
					if err := neverAlone(h); err != nil && daemonName != "address there already" {
						t.Error(err)
					}
					h.step = nil
					if _, err := Revert(context.Background(), h, ourURL); err == nil && daemonName != "address there already" {
						sameTree(t, before, h.snapshot(t))
					}
				})
			}
		}
	}
}

func TestNoMirrorIsWrittenIfHostsTomlCouldNotBe(t *testing.T) {
	for _, version := range []string{"28.5.2", "29.7.2", ""} {
		for _, op := range []string{"create", "write", "attributes", "sync", "rename"} {
			h := dockerHost(t, version, map[string]string{dockerJSON: `{"features": {"containerd-snapshotter": false}}`})
			before := h.get(t, dockerJSON)
			h.step = failing(op, hubHosts, unix.ENOSPC)
			if _, err := h.try(t, dockerOnly()); err == nil || !strings.Contains(err.Error(), dockerJSON+": stays as it is, because "+hubHosts+" could not be changed before it") {
				t.Errorf("%s: %v", op, err)
			}
			if got := h.get(t, dockerJSON); got != before {
				t.Errorf("%s: daemon.json became %s", op, got)
			}
		}
	}
}

func TestHostsTomlStaysIfTheMirrorCannotBeRemoved(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *Host){
		"write fails": func(_ *testing.T, h *Host) { h.step = failing("write", dockerJSON, unix.ENOSPC) },
	} {
		t.Run(name, func(t *testing.T) {
			h := dockerHost(t, "28.5.2", map[string]string{dockerJSON: `{"debug": true}`})
			h.apply(t, dockerOnly())
			spoil(t, h)
			if _, err := Revert(context.Background(), h, ourURL); err == nil || !strings.Contains(err.Error(), dockerJSON) {
				t.Errorf("error: %v", err)
			}
			contains(t, h.get(t, dockerJSON), ourURL)
			if err := neverAlone(h); err != nil {
				t.Error(err)
			}
		})
	}
}

// Found on a real host: a comment in daemon.json left docker.io/hosts.toml and the journal
// behind.
func TestRevertAlsoWorksOnAFileThatDockerdRefuses(t *testing.T) {
	h := dockerHost(t, "28.5.2", map[string]string{dockerJSON: `{"debug": true}`})
	h.apply(t, dockerOnly())
	h.put(t, dockerJSON, strings.Replace(h.get(t, dockerJSON), "{", "{ // mine\n", 1))
	h.revert(t)
	if got := h.get(t, dockerJSON); got != "{ // mine\n\"debug\": true}" {
		t.Errorf("daemon.json is %q", got)
	}
	h.missing(t, hubHosts)
	h.missing(t, "/var")
}

// neverAlone is an error if registry-mirrors has sidemirror's address and docker.io's
// hosts.toml does not have it.
func neverAlone(h *Host) error {
	daemon, _ := os.ReadFile(h.path(dockerJSON))
	hosts, _ := os.ReadFile(h.path(hubHosts))
	if strings.Contains(string(daemon), ourURL) && !strings.Contains(string(hosts), ourTable) {
		return errors.New("a loopback mirror without hosts.toml: TLS to Docker Hub is not verified")
	}
	return nil
}

func TestDockerBeforeVersion28GetsNoHostsToml(t *testing.T) {
	h := dockerHost(t, "27.5.1", nil)
	want := dockerOnly()
	want.Registries = []string{"docker.io", "r.example"}
	contains(t, notes(h.plan(t, want)), "Docker Hub only", "pull other registries as localhost:305/ghcr.io/…")
	h.apply(t, want)
	contains(t, h.get(t, dockerJSON), ourURL)
	h.missing(t, dockerHosts)
}

func TestDockerOfAnUnknownVersionGetsBoth(t *testing.T) {
	h := dockerHost(t, "", nil)
	contains(t, notes(h.plan(t, dockerOnly())), "version is not known")
	h.apply(t, dockerOnly())
	contains(t, h.get(t, dockerJSON), ourURL)
	contains(t, h.get(t, hubHosts), ourURL)
}

func TestDockerOnTheContainerdStoreKeepsTheUsersMirrors(t *testing.T) {
	const text = `{"features": {"containerd-snapshotter": true}, "registry-mirrors": ["https://a/"], "insecure-registries": ["plain:5000", "10.0.0.0/8"]}`
	h := dockerHost(t, "28.5.2", map[string]string{dockerJSON: text, "/etc/hosts": "198.51.100.1 registry-1.docker.io a\n"})
	before := h.snapshot(t)
	want := dockerOnly()
	want.Registries = []string{"docker.io", "plain:5000", "10.1.2.3:5000"}
	contains(t, notes(h.plan(t, want)), "plain:5000 is one of insecure-registries", "10.1.2.3:5000 is one of insecure-registries")
	h.apply(t, want)
	if got := h.get(t, dockerJSON); got != text {
		t.Errorf("daemon.json became %s", got)
	}
	contains(t, h.get(t, hubHosts), ourHost+"\n"+tableMark+"\n[host.\"https://a\"]")
	h.missing(t, "/etc/docker/certs.d/plain:5000")
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

// The watching service has no network and can resolve no name. What apply found about a mirror must
// stay, or the service would take skip_verify away from it.
func TestWhatIsKnownOfAMirrorOutlivesAnUnresolvedName(t *testing.T) {
	const text = `{"features": {"containerd-snapshotter": true}, "registry-mirrors": ["https://m.example:5000", "https://s.example"], "insecure-registries": ["10.0.0.0/8"]}`
	files := map[string]string{dockerJSON: text, "/etc/hosts": "198.51.100.1 registry-1.docker.io\n"}
	resolves := map[string][]netip.Addr{"m.example": {netip.MustParseAddr("10.1.1.1")}, "s.example": {netip.MustParseAddr("198.51.100.2")}}
	h := dockerHost(t, "29.7.2", files)
	fake := running(h)
	fake.store, fake.version, fake.names = "containerd", "29.7.2", resolves
	h.apply(t, dockerOnly())
	const mirrors = "[host.\"http://m.example:5000\"]\n  capabilities = [\"pull\", \"resolve\", \"referrers\"]\n  skip_verify = true\n"
	contains(t, h.get(t, hubHosts), mirrors, "[host.\"https://s.example\"]\n  capabilities = [\"pull\", \"resolve\", \"referrers\"]\n")
	fake.names = nil
	if plan := h.plan(t, dockerOnly()); len(plan.Changes)+len(plan.Refused) > 0 {
		t.Errorf("without names %+v, %s", plan.Changes, refusals(plan))
	}

	unknown := dockerHost(t, "29.7.2", files)
	fake = running(unknown)
	fake.store, fake.version = "containerd", "29.7.2"
	plan := unknown.plan(t, dockerOnly())
	contains(t, refusals(plan), "https://m.example:5000 may be in one of the networks of insecure-registries")
	if slices.ContainsFunc(plan.Changes, func(c Change) bool { return c.Path == hubHosts }) {
		t.Error("a mirror of which nothing is known is carried into a hosts.toml")
	}
}

func TestDaemonAUsersEditsOutliveUs(t *testing.T) {
	for name, test := range map[string]struct{ before, now, after string }{
		"key added":               {`{"debug": true}`, `{"debug": true, "registry-mirrors": ["http://127.0.0.1:305"], "icc": false}`, `{"debug": true, "icc": false}`},
		"key was null":            {`{"registry-mirrors": null}`, `{"registry-mirrors": ["http://127.0.0.1:305"], "icc": false}`, `{"registry-mirrors": null, "icc": false}`},
		"list was empty":          {`{"registry-mirrors": []}`, `{"registry-mirrors": ["http://127.0.0.1:305"], "icc": false}`, `{"registry-mirrors": [], "icc": false}`},
		"mirror added":            {`{}`, `{"registry-mirrors": ["https://b", "http://127.0.0.1:305"]}`, `{"registry-mirrors": ["https://b"]}`},
		"address twice":           {`{}`, `{"registry-mirrors": ["http://127.0.0.1:305", "http://127.0.0.1:305", "https://b"]}`, `{"registry-mirrors": ["https://b"]}`},
		"ours gone":               {`{}`, `{"icc": true}`, `{"icc": true}`},
		"first of members":        {`{}`, `{"registry-mirrors": ["http://127.0.0.1:305"], "icc": true}`, `{"icc": true}`},
		"file made by sidemirror": {"", `{"registry-mirrors": ["http://127.0.0.1:305"], "icc": true}`, `{"icc": true}`},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/etc/docker/": ""}
			if test.before != "" {
				files[dockerJSON] = test.before
			}
			h := dockerHost(t, "20.10.24", files)
			h.apply(t, dockerOnly())
			h.put(t, dockerJSON, test.now)
			h.revert(t)
			if got := h.get(t, dockerJSON); got != test.after {
				t.Errorf("got %s, want %s", got, test.after)
			}
			h.missing(t, "/var")
		})
	}
}
