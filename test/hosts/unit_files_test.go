package hosts_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
)

// newTree makes a host's tree in which nothing runs, for --root.
func newTree(t *testing.T, files map[string]string) *rig {
	t.Helper()
	r := &rig{host: &engine.Host{Root: t.TempDir()}}
	for _, folder := range []string{"etc", "var/lib", "srv"} {
		if err := os.MkdirAll(filepath.Join(r.host.Root, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.put(t, files)
	return r
}

// on runs a command of sidemirror's with --root and returns all that it prints.
func (r *rig) on(t *testing.T, args ...string) string {
	t.Helper()
	out, err := process.Run(t.Context(), nil, harness.Binary(t), append(args, "--root", r.host.Root)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// dpkg is a package database with one installed package.
func dpkg(name, version string) string {
	return "Package: " + name + "\nStatus: install ok installed\nVersion: " + version + "\n\n"
}

// Docker's own package leaves /etc/default/docker behind, which its unit does not read.
func TestALeftoverDefaultsFileIsNotTheFlagsOfAUnitThatDoesNotReadIt(t *testing.T) {
	const flags = "DOCKER_OPTS=\"--registry-mirror=https://old.test --config-file=/etc/docker/old.json\"\n"
	unit := func(service string) map[string]string {
		return map[string]string{
			"/usr/bin/dockerd":                   "",
			"/lib/systemd/system/docker.service": "[Service]\n" + service,
			"/etc/default/docker":                flags,
			"/etc/docker/old.json":               "{}\n",
			"/var/lib/dpkg/status":               dpkg("docker-ce", "5:20.10.24~3-0~debian"),
		}
	}
	for name, c := range map[string]struct {
		service string
		written string
	}{
		"not read":           {"ExecStart=/usr/bin/dockerd -H fd://\n", "/etc/docker/daemon.json"},
		"read, and not used": {"EnvironmentFile=-/etc/default/docker\nExecStart=/usr/bin/dockerd -H fd://\n", "/etc/docker/daemon.json"},
		"read and used":      {"EnvironmentFile=-/etc/default/docker\nExecStart=/usr/bin/dockerd -H fd:// $DOCKER_OPTS\n", ""},
		"used, and not read": {"ExecStart=/usr/bin/dockerd -H fd:// $DOCKER_OPTS\n", "/etc/docker/daemon.json"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTree(t, unit(c.service))
			out := r.on(t, "apply", "--engine", "docker")
			for _, file := range []string{"/etc/docker/daemon.json", "/etc/docker/old.json"} {
				if has := strings.Contains(r.read(t, file), "registry-mirrors"); has != (file == c.written) {
					t.Errorf("%s has registry-mirrors: %v\n%s", file, has, out)
				}
			}
		})
	}
}

// A variable in a unit's --config has its value from the unit's environment. Without one it
// is not the name of a file.
func TestAVariableInAUnitsConfigFlagIsResolvedOrLeavesTheFileAlone(t *testing.T) {
	const special = "/etc/containerd/special.toml"
	for name, c := range map[string]struct {
		service string
		files   map[string]string
		reads   string // where config_path is expected
	}{
		"environment":      {"Environment=CONF=" + special + "\nExecStart=/usr/bin/containerd --config ${CONF}\n", nil, special},
		"environment file": {"EnvironmentFile=/etc/default/containerd\nExecStart=/usr/bin/containerd --config=${CONF}\n", map[string]string{"/etc/default/containerd": "CONF=" + special + "\n"}, special},
		"drop-in": {"ExecStart=/usr/bin/containerd --config ${CONF}\n", map[string]string{
			"/etc/systemd/system/containerd.service.d/10-conf.conf": "[Service]\nEnvironment=\"CONF=" + special + "\"\n",
		}, special},
		"unknown": {"ExecStart=/usr/bin/containerd --config ${CONF}\n", nil, ""},
		"none":    {"ExecStart=/usr/bin/containerd\n", nil, config},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{
				"/usr/bin/containerd":                    "",
				"/lib/systemd/system/containerd.service": "[Service]\n" + c.service,
				"/var/lib/dpkg/status":                   dpkg("containerd", "1.7.24~ds1-6"),
				special:                                  "version = 2\n",
				config:                                   "version = 2\n",
			}
			maps.Copy(files, c.files)
			r := newTree(t, files)
			out, err := process.Run(t.Context(), nil, harness.Binary(t), "apply", "--engine", "containerd", "--restart-containerd", "--root", r.host.Root)
			for _, file := range []string{config, special} {
				if has := strings.Contains(r.read(t, file), "config_path"); has != (file == c.reads) {
					t.Errorf("%s has config_path: %v\n%s%v", file, has, out, err)
				}
			}
			if err != nil && c.reads != "" {
				t.Error(err)
			}
			for name := range r.takeTree(t) {
				if strings.Contains(name, "$") {
					t.Errorf("apply made %s", name)
				}
			}
		})
	}
}

// A refresh of the microk8s snap copies its folder of the old revision to a new one, and
// keeps the old one for `snap revert`.
func TestBothRevisionsOfMicrok8sAreRestored(t *testing.T) {
	const shipped = "server = \"https://registry-1.docker.io\"\n\n[host.\"https://registry-1.docker.io\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
	r := newTree(t, map[string]string{
		"/var/snap/microk8s/100/args/certs.d/docker.io/hosts.toml": shipped,
		"/var/snap/microk8s/100/args/containerd":                   "--config ${SNAP_DATA}/args/containerd.toml\n",
	})
	r.link(t, "/var/snap/microk8s/current", "100")
	r.on(t, "apply")
	hosts := func(revision string) string {
		return r.read(t, "/var/snap/microk8s/"+revision+"/args/certs.d/docker.io/hosts.toml")
	}
	if !strings.Contains(hosts("100"), listen) {
		t.Fatal("apply does not configure microk8s, so this test shows nothing")
	}
	folder := filepath.Join(r.host.Root, "var/snap/microk8s")
	err := errors.Join(os.CopyFS(filepath.Join(folder, "101"), os.DirFS(filepath.Join(folder, "100"))),
		os.Remove(filepath.Join(folder, "current")), os.Symlink("101", filepath.Join(folder, "current")))
	if err != nil {
		t.Fatal(err)
	}
	r.on(t, "apply")
	if !strings.Contains(hosts("101"), listen) {
		t.Error("after the refresh apply leaves the new revision without sidemirror's table")
	}
	r.on(t, "revert")
	for _, revision := range []string{"100", "101"} {
		if got := hosts(revision); got != shipped {
			t.Errorf("after revert revision %s has\n%s", revision, got)
		}
		var left []string
		for name := range maps.Keys(r.hostsFilesBelow(t, "/var/snap/microk8s/"+revision)) {
			if !strings.HasSuffix(name, "/docker.io/hosts.toml") {
				left = append(left, name)
			}
		}
		if slices.Sort(left); len(left) > 0 {
			t.Errorf("after revert there are still %q", left)
		}
	}
}

// A dockerd that does not run yet has the flags of its unit, with its drop-ins and variables.
func TestRegistriesThatAFlagOfTheUnitMakesInsecureGetNoHostsFile(t *testing.T) {
	const name = "reg.corp.example"
	for title, files := range map[string]map[string]string{
		"unit":                    {"/lib/systemd/system/docker.service": "[Service]\nExecStart=/usr/bin/dockerd -H fd:// --insecure-registry=" + name + "\n"},
		"unit over several lines": {"/lib/systemd/system/docker.service": "[Service]\nExecStart=/usr/bin/dockerd \\\n  -H fd:// \\\n  --insecure-registry " + name + "\n"},
		"drop-in": {
			"/lib/systemd/system/docker.service":                    "[Service]\nExecStart=/usr/bin/dockerd -H fd://\n",
			"/etc/systemd/system/docker.service.d/50-insecure.conf": "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// --insecure-registry=http://" + name + "\n",
		},
		"variable of Debian's unit": {
			"/lib/systemd/system/docker.service": "[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n",
			"/etc/default/docker":                "DOCKER_OPTS=\"--insecure-registry=" + name + " --log-level=info\"\n",
		},
		"admin's unit over the package's": {
			"/lib/systemd/system/docker.service": "[Service]\nExecStart=/usr/bin/dockerd -H fd://\n",
			"/etc/systemd/system/docker.service": "[Service]\nExecStart=/usr/bin/dockerd --insecure-registry=\"" + name + "\"\n",
		},
	} {
		t.Run(title, func(t *testing.T) {
			r := newTree(t, map[string]string{
				"/usr/bin/dockerd":            "",
				"/var/lib/dpkg/status":        dpkg("docker-ce", "5:29.1.0-1~debian"),
				"/etc/sidemirror/config.toml": "[registry.\"" + name + "\"]\n[registry.\"other.corp.example\"]\n",
			})
			r.put(t, files)
			out := r.on(t, "apply", "--engine", "docker")
			for registry, want := range map[string]bool{name: false, "other.corp.example": true, hubName: true} {
				if has := exists(filepath.Join(r.host.Root, "etc/docker/certs.d", registry, "hosts.toml")); has != want {
					t.Errorf("%s has a hosts.toml: %v\n%s", registry, has, out)
				}
			}
		})
	}
}
