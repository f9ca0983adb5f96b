package hosts_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
)

// examined is what `sidemirror doctor --json` prints, as far as these tests look at it.
type examined struct {
	OK     bool
	Chains []struct {
		Kind, Name string
		Links      []struct {
			Name, State, Text string
			Problems          []remark
		}
	}
}

// links lists the links of all chains that are in a state, each with the codes of its problems:
// "containerd/configuration containerd-config-path".
func (e examined) links(state string) (list []string) {
	for _, c := range e.Chains {
		name, _, _ := strings.Cut(c.Name, " ")
		for _, l := range c.Links {
			if l.State != state {
				continue
			}
			line := name + "/" + l.Name
			for _, p := range l.Problems {
				line += " " + p.Code
			}
			list = append(list, line)
		}
	}
	return list
}

// doctor runs sidemirror's command by a prefix, such as one that changes the user.
func (r *rig) doctor(t *testing.T, prefix ...string) examined {
	t.Helper()
	program := "/srv/" + filepath.Base(harness.Binary(t))
	out, stderr, code, err := r.host.Run(t.Context(), append(prefix, program, "doctor", "--json")...)
	var e examined
	if err == nil {
		err = json.Unmarshal([]byte(out), &e)
	}
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr)
	}
	if e.OK != (code == 0) || e.OK != (len(e.links("broken")) == 0) {
		t.Errorf("exit code %d, ok is %v, and broken are %q", code, e.OK, e.links("broken"))
	}
	return e
}

// A host has no systemd here, as a container has none, and sidemirror runs by hand.
func TestDoctorReportsNothingOnAHealthyHostWithoutSystemd(t *testing.T) {
	engine.NeedRoot(t)
	each(t, engine.Generations(), func(t *testing.T, g engine.Generation) {
		// Without a policy, podman and skopeo pull nothing.
		const policy = `{"default": [{"type": "insecureAcceptAnything"}]}`
		r := newRig(t, rigOptions{generation: g, files: map[string]string{config: certsPath, "/etc/containers/policy.json": policy}})
		r.do(t, 0, "apply")
		e := r.doctor(t)
		if !e.OK {
			t.Fatalf("broken are %q: %+v", e.links("broken"), e)
		}
		sound, skipped := e.links("ok"), e.links("skipped")
		for _, link := range []string{"sidemirror/service", "docker/test pull", "containerd/test pull", "podman/test pull"} {
			if !slices.Contains(sound, link) {
				t.Errorf("%s is not among the sound links %q", link, sound)
			}
		}
		// Only a service has the socket by which the daemon is asked, and doctor says so.
		for _, link := range []string{"sidemirror/disk", hubName + "/connection", otherName + "/connection"} {
			if !slices.Contains(skipped, link) {
				t.Errorf("%s is not among the skipped links %q", link, skipped)
			}
		}
		for _, c := range e.Chains {
			for _, l := range c.Links {
				if l.State == "skipped" && !strings.Contains(l.Text, "does not run as a systemd service") {
					t.Errorf("%s of %s is skipped, and the text is %q", l.Name, c.Name, l.Text)
				}
			}
		}
		images, _, _, err := r.host.Run(t.Context(), "/bin/sh", "-c", "ctr --namespace k8s.io images list --quiet; ctr --namespace moby images list --quiet; docker images --quiet; ls /tmp")
		if err != nil || images != "" {
			t.Errorf("doctor leaves behind %q, %v", images, err)
		}
	})
}

func TestDoctorWithoutRootSaysWhatItCannotSee(t *testing.T) {
	engine.NeedRoot(t)
	each(t, engine.Generations(), func(t *testing.T, g engine.Generation) {
		r := newRig(t, rigOptions{generation: g, files: map[string]string{config: certsPath}})
		// A real host's root folder and sidemirror's configuration are readable.
		for _, name := range []string{"/", "/etc", "/etc/sidemirror", "/srv"} {
			if err := os.Chmod(r.host.Path(name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(r.host.Path("/etc/sidemirror/config.toml"), 0o644); err != nil {
			t.Fatal(err)
		}
		r.do(t, 0, "apply")
		e := r.doctor(t, "setpriv", "--reuid=1234", "--regid=1234", "--clear-groups")
		if !e.OK {
			t.Errorf("broken are %q: %+v", e.links("broken"), e)
		}
		for _, link := range []string{"sidemirror/rights", "docker/test pull", "containerd/test pull", "podman/test pull"} {
			if skipped := e.links("skipped"); !slices.Contains(skipped, link) {
				t.Errorf("%s is not among the skipped links %q", link, skipped)
			}
		}
	})
}

// Each of these hosts is sound in the eyes of older engines.
func TestDoctorNamesWhatNewerEnginesIgnore(t *testing.T) {
	engine.NeedRoot(t)
	const hosts = "/etc/docker/certs.d/docker.io/hosts.toml"
	each(t, readers, func(t *testing.T, g engine.Generation) {
		r := newRig(t, rigOptions{generation: g, files: map[string]string{config: certsPath}})
		for _, c := range []struct {
			name  string
			files map[string]string // before apply
			after map[string]string // what another tool writes later
			want  string
		}{
			{"a list of folders as config_path", map[string]string{config: images2}, nil, "containerd/configuration containerd-config-path"},
			{"no config_path", map[string]string{config: "version = 3\n"}, nil, "containerd/configuration containerd-config-path"},
			{"registry-mirrors, which a hosts.toml overrides", map[string]string{"/etc/docker/daemon.json": dockerJSON(g, `"registry-mirrors": ["http://`+listen+`"]`)},
				map[string]string{hosts: "server = \"https://registry-1.docker.io\"\n\n[host.\"https://registry-1.docker.io\"]\n  capabilities = [\"pull\", \"resolve\"]\n"},
				"docker/configuration files-pending"},
		} {
			t.Run(c.name, func(t *testing.T) {
				r.put(t, c.files)
				r.host.StartContainerd(t)
				r.host.StartDocker(t)
				defer r.do(t, 0, "revert")
				r.run(t, "apply")
				r.put(t, c.after)
				if e := r.doctor(t); !slices.Contains(e.links("broken"), c.want) {
					t.Errorf("broken are %q, want %q", e.links("broken"), c.want)
				}
			})
		}
	})
}
