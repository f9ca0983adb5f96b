package hosts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/test/engine"
)

// dockerdVersions are the versions of dockerd in the generations.
var dockerdVersions = map[engine.Generation]splice.Version{
	engine.Bookworm: {Major: 20, Minor: 10}, engine.Trixie: {Major: 26, Minor: 1},
	engine.Sid: {Major: 28, Minor: 5}, engine.Built: {Major: 29, Minor: 7},
}

// daemonForms are forms of daemon.json, in each of which some version of dockerd has a rule of its
// own: encodings, white space, repeated keys, other cases, unknown keys, types and values.
var daemonForms = []string{
	"", " \n\t", "{}", "null", " null ", "[]", "5", `"x"`, "{", "{}}", "{} x", "{}\n{}", "null x",
	"\xef\xbb\xbf{}", "\xef\xbb\xbf", "\xef\xbb\xbf\xef\xbb\xbf{}", "{}\xef\xbb\xbf",
	"\xff\xfe{\x00}\x00", "\xfe\xff\x00{\x00}", "\xff\xfe{\x00}\x00\n\x00", "\xff\xfe{\x00}", "{\x00}\x00", "\xff\xfe",
	"\xc2\xa0{}", "{}\xc2\xa0", "{\"labels\": [\"a=\xff\"]}", `{"labels": ["a=\ud800"]}`, "{\"labels\": [\"a=\x01\"]}",
	`{"debug": true,}`, "{\n// comment\n\"debug\": true}", "{/* comment */}", `{'debug': true}`, `{debug: true}`, `{"debug": True}`,
	`{"debug": true, "debug": false}`, `{"debug": true, "debug": 5}`, `{"debug": true, "DEBUG": {}}`, `{"debug": true, "DEBUG": true}`,
	`{"registry-mirrors": ["https://a.example"], "registry-mirrors": ["https://b.example"]}`,
	`{"registry-mirrors": [], "registry\u002dmirrors": null}`, `{"Registry-Mirrors": ["https://a.example"]}`, `{"Registry-Mirrors": {}}`,
	`{"registry-mirrors": null}`, `{"registry-mirrors": {}}`, `{"registry-mirrors": "https://a.example"}`, `{"registry-mirrors": [1]}`,
	`{"registry-mirrors": [null]}`, `{"registry-mirrors": [["https://a.example"]]}`, `{"registry-mirrors": ["a.example:5000"]}`,
	`{"registry-mirrors": ["https://user:password@a.example"]}`, `{"registry-mirrors": ["https://a.example/path/"]}`,
	`{"registry-mirrors": ["https://a.example?x=y"]}`, `{"registry-mirrors": ["http://[::1]:5000/"]}`, `{"registry-mirrors": ["ftp://a.example"]}`,
	`{"unknown": 1}`, `{"unknown": {}}`, `{"unknown": []}`, `{"unknown": null}`, `{"unknown": 1, "unknown": {}}`, `{"unknown": {"debug": "x"}}`,
	`{"unknown": {"unknown": {}}}`, `{"unknown": {"registry-mirrors": ["https://a.example"]}}`, `{"": {}}`, `{"": 1}`,
	`{"label": 5, "host": {}}`, `{"help": true, "version": 1}`, `{"default-init": "x"}`, `{"default-init": {}}`, `{"resolv-conf": null}`,
	`{"containerd-plugin-namespace": "x"}`, `{"swarm-raft-election-tick": 1}`, `{"validate": {}}`,
	`{"log-opts": {"max-size": "1m"}}`, `{"log-opts": {"max-size": 1}}`, `{"log-opts": {"max-size": null}}`, `{"Log-Opts": {"max-size": "1m"}}`,
	`{"Log-Opts": {}}`, `{"features": {"containerd-snapshotter": true}}`, `{"features": {"containerd-snapshotter": "true"}}`, `{"features": []}`,
	`{"builder": {"gc": {"enabled": true, "defaultKeepStorage": "10GB", "policy": [{"all": true, "keepStorage": "1GB", "filter": ["unused-for=2h"]}]}}}`,
	`{"builder": {"gc": {"enabled": "yes"}}}`, `{"builder": {"gc": {"policy": [{"keepStorage": 1}]}}}`, `{"builder": 5}`, `{"builder": {"x": 1}}`,
	`{"proxies": {"http-proxy": "http://p.example:3128"}}`, `{"proxies": {"http-proxy": 5}}`, `{"proxies": {"x": ""}}`, `{"proxies": {}}`, `{"proxies": 5}`, `{"proxies": null}`,
	`{"http-proxy": "http://p.example:3128"}`, `{"http-proxy": 5}`,
	`{"runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": [], "runtimeArgs": ["x"]}}}`, `{"runtimes": {"nvidia": {"path": 5}}}`, `{"runtimes": {"nvidia": 5}}`,
	`{"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 64000}}}`, `{"default-ulimits": {"nofile": {"Hard": "x"}}}`,
	`{"default-shm-size": "64M"}`, `{"default-shm-size": 64}`, `{"default-shm-size": null}`, `{"default-shm-size": "x"}`, `{"default-shm-size": ""}`, `{"default-shm-size": "1.5 GiB"}`,
	`{"default-address-pools": [{"base": "10.9.0.0/16", "size": 24}]}`, `{"default-address-pools": [{"base": "x", "size": 24}]}`, `{"default-address-pools": [{"base": "10.9.0.0/16", "size": "24"}]}`,
	`{"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1400"}}}`, `{"default-network-opts": {}}`, `{"default-network-opts": {"bridge": 5}}`,
	`{"cluster-store": "x"}`, `{"cluster-store": {}}`, `{"cluster-store-opts": {}}`, `{"graph": {}}`, `{"oom-score-adjust": -500}`, `{"deprecated-key-path": "x"}`, `{"deprecated-key-path": 5}`,
	`{"allow-nondistributable-artifacts": ["x"]}`, `{"api-cors-header": ""}`, `{"api-cors-header": "*"}`, `{"log-format": "json"}`, `{"log-format": "xml"}`,
	`{"cdi-spec-dirs": ["/etc/cdi"]}`, `{"host-gateway-ips": ["10.0.0.1"]}`, `{"host-gateway-ip": "10.0.0.1"}`, `{"host-gateway-ip": "x"}`, `{"host-gateway-ip": ""}`,
	`{"host-gateway-ip": "10.0.0.1", "host-gateway-ips": ["10.0.0.1"]}`, `{"feature": {}}`, `{"feature": 1}`, `{"bip6": "fd00::1/64"}`, `{"ip-forward-no-drop": true}`,
	`{"firewall-backend": "nftables"}`, `{"firewall-backend": "x"}`, `{"min-api-version": "1.44"}`, `{"nri-opts": {"enable": true}}`, `{"default-stop-timeout": 10}`,
	`{"dns": ["10.0.0.2", "fd00::2"]}`, `{"dns": ["x"]}`, `{"dns": "10.0.0.2"}`, `{"dns-search": ["corp.example", "."]}`, `{"dns-search": ["a b"]}`, `{"dns-search": ["1.2.3"]}`,
	`{"labels": ["zone=a"]}`, `{"labels": ["zone"]}`, `{"labels": ["com.docker.x=y"]}`, `{"exec-opts": ["native.cgroupdriver=systemd"]}`, `{"exec-opts": ["x=y"]}`,
	`{"mtu": 1450}`, `{"mtu": -1}`, `{"mtu": 1.5}`, `{"mtu": 1e2}`, `{"mtu": "1450"}`, `{"mtu": 12345678901234567890}`,
	`{"max-concurrent-downloads": 0}`, `{"max-concurrent-downloads": -1}`, `{"max-download-attempts": 0}`, `{"max-download-attempts": -1}`, `{"network-diagnostic-port": 70000}`,
	`{"log-level": "WARN"}`, `{"log-level": "loud"}`, `{"default-ipc-mode": "private"}`, `{"default-ipc-mode": "host"}`, `{"default-cgroupns-mode": "x"}`, `{"fixed-cidr-v6": "fd00::/64"}`, `{"fixed-cidr-v6": "10.0.0.0/8"}`,
	`{"tls": null, "live-restore": false}`, `{"tls": "false"}`, `{"debug": 1}`, `{"debug": null}`, `{"insecure-registries": ["10.0.0.0/8", "https://a.example/x"]}`, `{"ip": "0.0.0.0"}`, `{"ip": "x"}`,
	`{"a": ` + strings.Repeat("[", 10001) + strings.Repeat("]", 10001) + `}`, `{"unknown": {"debug": ` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}}`,
}

// What dockerd of a version starts with, sidemirror edits, and dockerd starts with the result; what
// that dockerd refuses, sidemirror refuses.
func TestDaemonJSONIsReadAsDockerdReadsIt(t *testing.T) {
	engine.NeedRoot(t)
	for _, g := range engine.Generations() {
		t.Run(string(g), func(t *testing.T) {
			t.Parallel()
			dockerd, version := filepath.Join(g.Get(t), "usr/sbin/dockerd"), dockerdVersions[g]
			for _, form := range daemonForms {
				says, accepted := dockerdAccepts(t, dockerd, version, form)
				name := form[:min(len(form), 100)]
				file, err := splice.ReadDaemon("daemon.json", []byte(form), version)
				if (err == nil) != accepted {
					t.Errorf("%q: dockerd says %q, sidemirror %v", name, says, err)
				}
				if err != nil {
					continue
				}
				edited, err := file.AddMirror("http://127.0.0.1:305")
				if err != nil {
					t.Errorf("%q: %v", name, err)
				} else if says, accepted := dockerdAccepts(t, dockerd, version, string(edited)); !accepted {
					t.Errorf("%q became %q, of which dockerd says %q", name, edited, says)
				}
			}
		})
	}
}

// dockerdAccepts reports whether dockerd gets past reading a daemon.json. Before 23 it has no
// --validate: it is started for real, with folders that it cannot make, so that it ends right after.
func dockerdAccepts(t *testing.T, dockerd string, v splice.Version, form string) (says string, ok bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(file, []byte(form), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--config-file", file, "--validate"}
	if v.Major < 23 {
		args = []string{"--config-file", file, "--data-root", "/dev/null/root", "--exec-root", "/dev/null/exec", "--host", "unix:///dev/null/sock", "--pidfile", "/dev/null/pid"}
	}
	cmd := exec.CommandContext(t.Context(), dockerd, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	says = lines[len(lines)-1]
	switch {
	case v.Major >= 23 && err == nil && says == "configuration OK":
		return says, true
	case v.Major < 23 && strings.Contains(says, "/dev/null/"):
		return says, true
	case strings.Contains(says, "unable to configure the Docker daemon with file "), strings.Contains(says, "unable to parse logging level"):
		return says, false
	}
	t.Fatalf("%q: dockerd says what this test does not know: %s", form, out)
	return "", false
}
