package hosts_test

import (
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
)

const (
	certsPath = criV2 + "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n"
	hubTOML   = "/etc/containerd/certs.d/docker.io/hosts.toml"
)

// Forms of hosts.toml that containerd 1.x takes, ignores or refuses, in which a table more
// can change what it makes of the rest. With bare keys below [host] it panics as soon as
// there are two of them (remotes/docker/config, getSortedHosts).
var hostTables = map[string]string{
	"bare key below host":                 "[host]\n  capabilities = [\"pull\"]\n",
	"bare key and a table":                "[host]\n  skip_verify = true\n[host.\"https://registry-1.docker.io\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
	"host is a string":                    "host = \"https://registry-1.docker.io\"\n",
	"inline table":                        "host = { \"https://registry-1.docker.io\" = { capabilities = [\"pull\", \"resolve\"] } }\n",
	"empty inline table":                  "host = {}\n",
	"inline table below host":             "[host]\n\"https://registry-1.docker.io\" = { capabilities = [\"pull\", \"resolve\"] }\n",
	"dotted key":                          "host.\"https://registry-1.docker.io\".capabilities = [\"pull\", \"resolve\"]\n",
	"dotted key below host":               "[host]\n\"https://registry-1.docker.io\".capabilities = [\"pull\", \"resolve\"]\n",
	"array of tables":                     "[[host]]\n  capabilities = [\"pull\"]\n",
	"array of tables by name":             "[[host.\"https://registry-1.docker.io\"]]\n  capabilities = [\"pull\", \"resolve\"]\n",
	"header only":                         "[host.\"https://registry-1.docker.io\".header]\n  x-a = [\"b\"]\n",
	"header before its table":             "[host.\"https://registry-1.docker.io\".header]\n  x-a = [\"b\"]\n[host.\"https://registry-1.docker.io\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
	"name in single quotes":               "[host.'https://registry-1.docker.io']\n  capabilities = [\"pull\", \"resolve\"]\n",
	"bare name":                           "[host.registry]\n  capabilities = [\"push\"]\n",
	"spaces":                              "[ host . \"https://registry-1.docker.io\" ]\n  capabilities = [\"pull\", \"resolve\"]\n",
	"number":                              "host = 5\n",
	"server alone, which is no registry":  "server = \"https://docker.io\"\n",
	"server alone, without a scheme":      "server = \"docker.io\"\n",
	"authority alone, which is not there": "ca = \"/etc/ssl/none.pem\"\n",
	"unknown capability":                  "[host.\"https://registry-1.docker.io\"]\n  capabilities = [\"pull\", \"fly\"]\n",
	"no table":                            "# mine\n",
}

// Whatever is in a hosts.toml: if a pull works before apply, it works after it too, while
// sidemirror runs and while it does not, and containerd lives on. Revert restores each byte.
func TestAHostsFileOfAnyShapeNeverMakesAPullWorse(t *testing.T) {
	engine.NeedRoot(t)
	each(t, []engine.Generation{engine.Bookworm, engine.Trixie, engine.Sid, engine.Built}, func(top *testing.T, g engine.Generation) {
		r := newRig(top, rigOptions{generation: g, files: map[string]string{config: certsPath}})
		written := map[string]string{} // what apply makes of each
		for name, content := range hostTables {
			top.Run(name, func(t *testing.T) {
				r.put(t, map[string]string{hubTOML: content})
				if r.triesCRI(top) != nil {
					t.Logf("containerd of %s cannot pull with it before apply", g)
					return
				}
				first := r.takeTree(t)
				_, stderr, code := r.run(t, "apply", "--engine", "containerd")
				if code != 0 && !strings.Contains(stderr, hubTOML) {
					t.Errorf("apply ends with %d and does not name %s:\n%s", code, hubTOML, stderr)
				}
				written[name] = r.read(t, hubTOML)
				for _, when := range []string{"after apply", "at the second pull after apply"} {
					if err := r.triesCRI(top); err != nil {
						t.Errorf("%s: %v\n%s", when, err, written[name])
					}
				}
				r.do(t, 0, "revert")
				r.sameTree(t, "after revert", first)
			})
		}
		r.sidemirror.Stop()
		for name, content := range written {
			top.Run(name+", sidemirror stopped", func(t *testing.T) {
				r.put(t, map[string]string{hubTOML: content})
				if err := r.triesCRI(top); err != nil {
					t.Errorf("%v, with\n%s", err, content)
				}
			})
		}
	})
}
