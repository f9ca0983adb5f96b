package hosts_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
)

// For every generation and setting: before apply the engines go straight to the registry,
// after it through sidemirror, after revert straight again, and nothing is left behind.
func TestEnginesPullThroughSidemirrorFromApplyToRevert(t *testing.T) {
	engine.NeedRoot(t)
	for _, g := range engine.Generations() {
		for _, s := range settings {
			if s.generations != nil && !slices.Contains(s.generations, g) {
				continue
			}
			t.Run(string(g)+"/"+s.name, func(t *testing.T) { s.fromApplyToRevert(t, g) })
		}
	}
}

func (s setting) fromApplyToRevert(t *testing.T, g engine.Generation) {
	r := newRig(t, rigOptions{generation: g, files: s.files})
	if s.defaults {
		r.defaultConfig(t)
	}
	s.checkStore(t, g, r)
	r.checkKept(t, s.keeps)
	first, dump := r.takeTree(t), r.configPath(t)
	r.expect(t, "before apply", ways{direct, direct, direct, direct})

	plan, _ := r.do(t, 2, "plan")
	t.Logf("plan:\n%s", plan)
	r.sameTree(t, "after plan", first)
	applied, _ := r.do(t, 0, "apply")
	t.Logf("apply:\n%s", applied)
	for name, reads := range map[string]bool{"docker": s.dockerReadsHosts(g), "containerd": s.cri} {
		if strings.Contains(applied, "\nprobed     "+name+" reads hosts.toml files in /etc/") != reads || strings.Contains(applied, "warning") {
			t.Errorf("%s reads hosts.toml files: %v; apply prints\n%s", name, reads, applied)
		}
	}
	r.do(t, 0, "plan")
	want := ways{direct, direct, viaSidemirror, direct}
	if s.dockerReadsHosts(g) {
		want.dockerOther = viaSidemirror
	}
	if s.cri {
		want.criHub, want.criOther = viaSidemirror, viaSidemirror
	}
	r.agree(t, "after apply", want)
	switch {
	case s.leaves != "":
		r.leavesPath(t, s.leaves)
		r.agree(t, "after a restart of containerd", want)
	case !s.cri:
		r.restartForPath(t, s.pathIn(g))
		want.criHub, want.criOther = viaSidemirror, viaSidemirror
		r.agree(t, "after the restart of containerd", want)
		r.checkKept(t, s.keeps)
	}

	reverted, _ := r.do(t, 0, "revert")
	t.Logf("revert:\n%s", reverted)
	r.sameTree(t, "after revert", first)
	r.expect(t, "after revert", ways{direct, direct, direct, direct})
	if got := r.info(t).RegistryConfig.Mirrors; len(got) > 0 {
		t.Errorf("after revert dockerd has the mirrors %q", got)
	}

	r.host.StartContainerd(t)
	r.host.StartDocker(t)
	if now := r.configPath(t); now != dump {
		t.Errorf("after revert containerd's config_path is %s, and was %s", now, dump)
	}
	r.expect(t, "after revert and a restart of the engines", ways{direct, direct, direct, direct})
	r.sameTree(t, "after a restart of the engines", first)
}

// dockerReadsHosts reports whether this Docker mirrors more than Docker Hub.
func (s setting) dockerReadsHosts(g engine.Generation) bool {
	return s.store[g] == "containerd" && (g == engine.Sid || g == engine.Built)
}

// leavesPath checks that config_path is not set if it must not be, and that apply says why.
func (r *rig) leavesPath(t *testing.T, why string) {
	t.Helper()
	before, err := os.ReadFile(filepath.Join(r.host.Root, config))
	if err != nil {
		t.Fatal(err)
	}
	out, _ := r.do(t, 0, "apply", "--restart-containerd")
	if !strings.Contains(out, why) {
		t.Errorf("apply --restart-containerd does not say %q:\n%s", why, out)
	}
	after, err := os.ReadFile(filepath.Join(r.host.Root, config))
	if err != nil || string(after) != string(before) {
		t.Errorf("%s must stay as it is, and is now, with %v,\n%s", config, err, after)
	}
	r.host.StartContainerd(t)
}

// pathIn is the file in which config_path should be set.
func (s setting) pathIn(g engine.Generation) string {
	if g == engine.Bookworm || g == engine.Trixie {
		return s.writes[0]
	}
	return s.writes[1]
}

// agree looks, and checks that the status says of the engines what their pulls do.
func (r *rig) agree(t *testing.T, when string, want ways) {
	t.Helper()
	r.expect(t, when, want)
	s := r.status(t)
	if len(s.Pending)+len(s.Signals)+len(s.Refused) > 0 {
		t.Errorf("%s, the status has something left to do: %+v", when, s)
	}
	r.tellsCRI(t, want.criHub)
	r.tellsDocker(t, want.dockerHub, want.dockerOther)
	docker := s.engine(t, "docker")
	info := r.info(t)
	if !strings.HasPrefix(info.ServerVersion, docker.Version) || docker.Version == "" || (docker.Store == "containerd") != info.ContainerdStore() {
		t.Errorf("%s, dockerd says of itself %+v, and the status %+v", when, info, docker)
	}
}

// restartForPath has config_path set, which needs a restart of containerd, and does what
// systemd would do. There is none on this host, which apply must say.
func (r *rig) restartForPath(t *testing.T, file string) {
	t.Helper()
	out, err := r.do(t, 1, "apply", "--restart-containerd")
	t.Logf("apply --restart-containerd:\n%s%s", out, err)
	if !strings.Contains(err, "systemd does not run here, so that containerd cannot be restarted") {
		t.Errorf("apply --restart-containerd says %q", err)
	}
	if !strings.Contains(out, "wrote      "+file+"\n") {
		t.Errorf("apply must write %s for config_path:\n%s", file, out)
	}
	r.host.StartContainerd(t)
	r.host.StartDocker(t) // from the file as it is now, as after a reboot
	r.do(t, 0, "plan", "--restart-containerd")
	if path := r.configPath(t); path != "/etc/containerd/certs.d" {
		t.Errorf("containerd reads config_path as %q", path)
	}
}

func (s setting) checkStore(t *testing.T, g engine.Generation, r *rig) {
	t.Helper()
	info := r.info(t)
	t.Logf("dockerd %s, store %s %v", info.ServerVersion, info.Driver, info.DriverStatus)
	if info.ContainerdStore() != (s.store[g] == "containerd") {
		t.Errorf("dockerd's store is %s %v, and this test is about another", info.Driver, info.DriverStatus)
	}
}

func (r *rig) info(t *testing.T) engine.DockerInfo {
	t.Helper()
	info, err := r.host.DockerInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// defaultConfig writes what containerd has by default into its file.
func (r *rig) defaultConfig(t *testing.T) {
	t.Helper()
	script := "mkdir -p /etc/containerd && /usr/bin/containerd config default >/etc/containerd/config.toml"
	if _, stderr, code, err := r.host.Run(t.Context(), "/bin/sh", "-c", script); err != nil || code != 0 {
		t.Fatalf("containerd config default: exit code %d, %v\n%s", code, err, stderr)
	}
	r.host.StartContainerd(t)
}

// checkKept looks for lines in what containerd makes of its configuration.
func (r *rig) checkKept(t *testing.T, lines []string) {
	t.Helper()
	dump, err := r.host.ConfigDump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range lines {
		if !strings.Contains(strings.ReplaceAll(dump, "'", "\""), line) {
			t.Errorf("containerd reads a configuration without %s", line)
		}
	}
}

var configPathLine = regexp.MustCompile(`(?m)^\s*config_path = ["'](.*)["']$`)

// configPath is CRI's as containerd reads it.
func (r *rig) configPath(t *testing.T) string {
	t.Helper()
	dump, err := r.host.ConfigDump(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(dump, ".registry]")
	found := configPathLine.FindStringSubmatch(section)
	if found == nil {
		t.Fatalf("containerd config dump has no config_path:\n%s", dump)
	}
	return found[1]
}
