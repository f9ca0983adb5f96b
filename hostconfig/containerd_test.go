package hostconfig

import (
	"os"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
)

const (
	criV2 = "[plugins.\"io.containerd.grpc.v1.cri\".registry]"
	criV3 = "[plugins.\"io.containerd.cri.v1.images\".registry]"
	// runcV2 is what 1.x lost to a drop-in (k0s #6547).
	runcV2 = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  SystemdCgroup = true # mine\n"
)

func restarting() engine.Desired {
	want := containerdOnly("r.example")
	want.RestartContainerd = true
	return want
}

func TestConfigPathByVersionOfContainerd(t *testing.T) {
	for name, test := range map[string]struct {
		version       string
		config        string            // of config.toml; "" for no such file
		files         map[string]string // others
		note, refused string            // what plan says without and with restart
		writes, text  string            // the file that changes, and what it becomes
	}{
		"19 1.7, empty path": {version: "1.7.34", config: "version = 2\n" + criV2 + "\n  config_path = \"\" # why\n" + runcV2,
			note: "config_path is empty; sidemirror apply --restart-containerd", writes: containerdConfig,
			text: "version = 2\n" + criV2 + "\n" + settingMark + "\n#sidemirror#   config_path = \"\" # why\n  config_path = \"/etc/containerd/certs.d\"\n" + runcV2},
		"19 1.7, no section": {version: "1.7.34", config: "version = 2\n" + runcV2, note: "CRI does not read", writes: containerdConfig,
			text: "version = 2\n" + runcV2 + "\n" + settingMark + "\n" + criV2 + "\n  config_path = \"/etc/containerd/certs.d\"\n"},
		"19 1.7, empty section": {version: "1.7.34", config: "version = 2\n" + criV2 + "\n" + runcV2, note: "CRI does not read", writes: containerdConfig,
			text: "version = 2\n" + criV2 + "\n" + settingMark + "\nconfig_path = \"/etc/containerd/certs.d\"\n" + runcV2},
		"20 1.7 with imports": {version: "1.7.34", config: "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n" + runcV2,
			files: map[string]string{"/etc/containerd/conf.d/": ""}, note: "CRI does not read", writes: containerdConfig,
			text: "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n" + runcV2 + "\n" + settingMark + "\n" + criV2 + "\n  config_path = \"/etc/containerd/certs.d\"\n"},
		"20 1.7, CRI in an import": {version: "1.7.34", config: "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
			files: map[string]string{"/etc/containerd/conf.d/cri.toml": "version = 2\n" + runcV2}, note: "CRI does not read", writes: "/etc/containerd/conf.d/cri.toml",
			text: "version = 2\n" + runcV2 + "\n" + settingMark + "\n" + criV2 + "\n  config_path = \"/etc/containerd/certs.d\"\n"},
		"1.6 without a file": {version: "1.6.20", note: "CRI does not read", writes: containerdConfig,
			text: splice.FileMark + "\nversion = 2\n\n" + criV2 + "\n  config_path = \"/etc/containerd/certs.d\"\n"},
		"21 2.2, nothing set": {version: "2.2.7", config: "version = 3\n", note: "#12636", writes: containerdConfig,
			text: "version = 3\n\n" + settingMark + "\n" + criV3 + "\n  config_path = \"/etc/containerd/certs.d\"\n"},
		"22 2.1, a list": {version: "2.1.9", config: "version = 3\n" + criV3 + "\nconfig_path = \"/a:/b\"\n", note: "config_path is a list", writes: containerdConfig,
			text: "version = 3\n" + criV3 + "\n" + settingMark + "\n#sidemirror# config_path = \"/a:/b\"\nconfig_path = \"/a\"\n"},
		"23 a list, local pulls": {version: "2.2.7", config: "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\ndiscard_unpacked_layers = true\n" + criV3 + "\nconfig_path = \"/etc/containerd/certs.d:/b\"\n"},
		"a list before 2.1":      {version: "1.7.34", config: "version = 2\n" + criV2 + "\nconfig_path = \"/etc/containerd/certs.d:/b\"\n"},
		"one folder":             {version: "2.3.4", config: "version = 3\n" + criV3 + "\nconfig_path = \"/etc/containerd/certs.d\"\n"},
		"24 mirrors": {version: "1.7.34", config: "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://a\"]\n",
			note: "has registry.mirrors: next to it containerd refuses config_path"},
		"25 cri disabled": {version: "1.7.34", config: "disabled_plugins = [\"cri\"]\n", note: "CRI is off"},
		"26 root v2 on 2.3, imports": {version: "2.3.4", config: "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
			files: map[string]string{"/etc/containerd/conf.d/": ""}, note: "CRI does not read", writes: "/etc/containerd/conf.d/99-sidemirror.toml",
			text: splice.FileMark + "\nversion = 2\n\n" + criV2 + "\n  config_path = \"/etc/containerd/certs.d\"\n"},
		"26 root v4 on 2.3, imports": {version: "2.3.4", config: "version = 4\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
			files: map[string]string{"/etc/containerd/conf.d/": ""}, note: "CRI does not read", writes: "/etc/containerd/conf.d/99-sidemirror.toml",
			text: splice.FileMark + "\nversion = 4\n\n" + criV3 + "\n  config_path = \"/etc/containerd/certs.d\"\n"},
		"27 conf.d without imports": {version: "2.3.4", config: "version = 3\n",
			files: map[string]string{"/etc/containerd/conf.d/x.toml": "version = 3\n" + criV3 + "\nconfig_path = \"/etc/containerd/certs.d\"\n"},
			note:  "CRI does not read", writes: containerdConfig, text: "version = 3\n\n" + settingMark + "\n" + criV3 + "\n  config_path = \"/etc/containerd/certs.d\"\n"},
		"a list in an import that is read last": {version: "2.3.4", config: "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
			files: map[string]string{"/etc/containerd/conf.d/zz.toml": "version = 2\n" + criV2 + "\nconfig_path = \"/a:/b\"\n"}, note: "config_path is a list",
			writes: "/etc/containerd/conf.d/zz.toml", text: "version = 2\n" + criV2 + "\n" + settingMark + "\n#sidemirror# config_path = \"/a:/b\"\nconfig_path = \"/a\"\n"},
		"an import of an import": {version: "2.3.4", config: "version = 3\nimports = [\"conf.d/*/a.toml\"]\n",
			files: map[string]string{"/etc/containerd/conf.d/x/a.toml": "imports = [\"../b.toml\"]\n", "/etc/containerd/conf.d/b.toml": "imports = [\"x/a.toml\"]\n" + criV3 + "\nconfig_path = \"/etc/containerd/certs.d\"\n"}},
		"a missing import": {version: "1.7.34", config: "version = 2\nimports = [\"gone.toml\"]\n", refused: "imports /etc/containerd/gone.toml, which does not exist: containerd would not start"},
		"no version": {version: "1.7.34", config: "root = \"/x\"\n", note: "CRI does not read", writes: containerdConfig,
			text: "root = \"/x\"\n\n" + settingMark + "\n[plugins.cri.registry]\n  config_path = \"/etc/containerd/certs.d\"\n"},
		"version 1": {version: "1.6.20", config: "[plugins.cri]\n  sandbox_image = \"a\"\n[plugins.cri.registry]\n", note: "CRI does not read", writes: containerdConfig,
			text: "[plugins.cri]\n  sandbox_image = \"a\"\n[plugins.cri.registry]\n" + settingMark + "\nconfig_path = \"/etc/containerd/certs.d\"\n"},
		"version 1 and an import with CRI": {version: "1.6.20", config: "imports = [\"more.toml\"]\n",
			files: map[string]string{"/etc/containerd/more.toml": "version = 2\n" + runcV2}, note: "CRI does not read", refused: "as every file without a version"},
		"no version of containerd 2": {version: "2.3.4", config: "root = \"/x\"\n", note: "CRI does not read", refused: "as every file without a version"},
		"invalid":                    {version: "1.7.34", config: "version = 2\n[x\n", refused: containerdConfig + ":2: not valid TOML"},
		"inline table":               {version: "1.7.34", config: "version = 2\nplugins = {\"io.containerd.grpc.v1.cri\" = {registry = {}}}\n", note: "CRI does not read", refused: "as a value or an array"},
		"multi-line":                 {version: "1.7.34", config: "version = 2\n" + criV2 + "\nconfig_path = \"\"\"\n\"\"\"\n", refused: "no string on one line"},
		"comments only": {version: "1.7.34", config: "# mine\n", note: "CRI does not read", writes: containerdConfig,
			text: "# mine\n\n" + settingMark + "\n[plugins.cri.registry]\n  config_path = \"/etc/containerd/certs.d\"\n"},
		"comments only of containerd 2": {version: "2.3.4", config: "# mine\n", note: "CRI does not read", refused: "has comments only"},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/etc/containerd/": "", "/etc/kubernetes/": ""}
			for name, text := range test.files {
				files[name] = text
			}
			if test.config != "" {
				files[containerdConfig] = test.config
			}
			h := host(t, files)
			h.Versions[engine.Containerd] = test.version
			fake := running(h)
			fake.off, fake.containerd = true, []string{"containerd"}
			before := h.snapshot(t)
			contains(t, notes(h.plan(t, containerdOnly("r.example"))), test.note)
			plan := h.plan(t, restarting())
			if test.refused != "" {
				contains(t, refusals(plan), test.refused)
			} else if len(plan.Refused) > 0 {
				t.Error(refusals(plan))
			}
			if _, err := h.try(t, restarting()); (err != nil) != (test.refused != "") {
				t.Errorf("error: %v", err)
			}
			if test.writes != "" {
				if got := h.get(t, test.writes); got != test.text {
					t.Errorf("got\n%s\nwant\n%s", got, test.text)
				}
			} else if test.config != "" && h.get(t, containerdConfig) != test.config {
				t.Errorf("config.toml became %q", h.get(t, containerdConfig))
			}
			if wants := test.writes != ""; (fake.restarts == 1) != wants || fake.reloads != 0 {
				t.Errorf("%d restarts, %d reloads", fake.restarts, fake.reloads)
			}
			if test.refused == "" {
				h.apply(t, restarting())
				h.apply(t, containerdOnly("r.example"))
				if strings.Contains(notes(h.plan(t, containerdOnly("r.example"))), "CRI does not read") != (strings.HasPrefix(name, "24")) {
					t.Errorf("after apply: %s", notes(h.plan(t, containerdOnly("r.example"))))
				}
			}
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}

// dumping is a host on which a program that stands for containerd prints text as its config dump.
func dumping(t *testing.T, version, config, text string) *Host {
	h := host(t, map[string]string{
		containerdConfig:       config,
		"/usr/bin/containerd":  "#!/bin/sh\ncase $* in --version) echo containerd v" + version + ";; \"--config /etc/containerd/config.toml config dump\") cat \"${0%/usr/*}/dump\";; *) exit 3;; esac\n",
		"/dump":                text,
		"/etc/containerd/more": "",
	})
	if err := os.Chmod(h.path("/usr/bin/containerd"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.Versions = nil
	idle(h).execute = true
	return h
}

func TestWhatContainerdReportsCounts(t *testing.T) {
	const one, none = "version = 3\n" + criV3 + "\nconfig_path = \"/srv/hosts\"\n", "version = 3\n"
	for name, test := range map[string]struct {
		version, config, dump string
		hosts                 string
		mirror                engine.Mirror // once all is written; empty if config.toml was
		note                  string
	}{
		"agrees":           {"2.1.9", one, one, "/srv/hosts", engine.Active, ""},
		"another folder":   {"2.1.9", one, strings.Replace(one, "hosts", "other", 1), "/srv/other", engine.Active, `config_path to be "/srv/other"`},
		"none":             {"2.1.9", one, strings.Replace(one, "/srv/hosts", "", 1), containerdHosts, engine.Inactive, `config_path to be ""`},
		"CRI off":          {"2.1.9", one, "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n", containerdHosts, engine.Active, "nothing, since CRI is off"},
		"built in, 2.2.0":  {"2.2.0", none, strings.Replace(one, "/srv/hosts", builtIn, 1), containerdHosts, "", ""},
		"built in, 2.2.2":  {"2.2.2", none, strings.Replace(one, "/srv/hosts", "", 1), containerdHosts, "", ""},
		"not to be parsed": {"2.1.9", one, "<html>", "/srv/hosts", engine.Active, ""},
		"says nothing":     {"2.1.9", one, "", "/srv/hosts", engine.Active, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := dumping(t, test.version, test.config, test.dump)
			want := restarting()
			plan := h.plan(t, want)
			if s := plan.Engines[1]; s.Hosts != test.hosts || s.Version != test.version {
				t.Errorf("%+v", s)
			}
			if contains(t, notes(plan), test.note); test.note != "" {
				contains(t, notes(plan), "its configuration stays as it is")
			}
			if _, err := h.try(t, want); err != nil {
				t.Fatal(err)
			}
			if written := h.get(t, containerdConfig) != test.config; written != strings.HasPrefix(name, "built in") {
				t.Errorf("config.toml became %q", h.get(t, containerdConfig))
			}
			h.get(t, test.hosts+"/r.example/hosts.toml")
			if s := h.plan(t, want).Engines[1]; test.mirror != "" && s.Mirror != test.mirror {
				t.Errorf("after apply: %+v", s)
			}
		})
	}
}

// What /usr/bin has is not asked for what another runs.
func TestAnotherContainerdThanTheInstalledOneRuns(t *testing.T) {
	for program, known := range map[string]bool{"/usr/bin/containerd": true, "/bin/containerd": true, "containerd": true, "/opt/new/containerd": false} {
		h := dumping(t, "2.1.9", "version = 3\n", criV3+"\nconfig_path = \"/srv/hosts\"\n")
		if err := os.Symlink("usr/bin", h.path("/bin")); err != nil {
			t.Fatal(err)
		}
		h.Running.(*fakeRunning).containerd = []string{program}
		plan := h.plan(t, containerdOnly("r.example"))
		if s := plan.Engines[1]; (s.Version == "2.1.9") != known || (s.Hosts == "/srv/hosts") != known {
			t.Errorf("%s: %+v", program, s)
		}
		if said := strings.Contains(notes(plan), program+": this containerd runs, and not the installed /usr/bin/containerd"); said == known {
			t.Errorf("%s: %s", program, notes(plan))
		}
	}
}

func TestContainerdHostsGoWhereConfigPathPoints(t *testing.T) {
	h := host(t, map[string]string{containerdConfig: "version = 2\n" + criV2 + "\nconfig_path = \"/srv/hosts\"\n"})
	before := h.snapshot(t)
	h.apply(t, containerdOnly("r.example"))
	contains(t, h.get(t, "/srv/hosts/r.example/hosts.toml"), ourURL)
	h.missing(t, containerdHosts)
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestVersionOfATreeComesFromItsPackages(t *testing.T) {
	const status = "Package: docker.io\nStatus: deinstall ok config-files\nVersion: 20.10.1\n\nPackage: docker-ce\nStatus: install ok installed\nVersion: 5:27.3.1-1\n\n" +
		"Package: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1-1+deb12u1\n"
	h := host(t, map[string]string{"/var/lib/dpkg/status": status, "/usr/bin/dockerd": "#!/bin/sh\necho Docker version 99.0.0\n", "/etc/containerd/": ""})
	h.Versions = nil
	plan := h.plan(t, desired("docker.io"))
	if plan.Engines[0].Version != "27.3.1" || plan.Engines[1].Version != "1.6.20" {
		t.Errorf("%+v", plan.Engines)
	}
}

func TestAnEngineThatIsNotThereIsLeftAlone(t *testing.T) {
	h := host(t, map[string]string{"/etc/": ""})
	before := h.snapshot(t)
	h.apply(t, desired("docker.io"))
	sameTree(t, before, h.snapshot(t))
	h.Present = []string{engine.Containerd}
	want := desired("docker.io")
	want.Leave = []string{engine.Docker}
	h.apply(t, want)
	contains(t, h.get(t, "/etc/containerd/certs.d/docker.io/hosts.toml"), ourURL)
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}
