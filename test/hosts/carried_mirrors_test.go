package hosts_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/network"
	"github.com/sidemirror/sidemirror/test/registry"
)

const mirrorName = "m.corp.example"

// A mirror that Docker knows from registry-mirrors is carried into the hosts.toml of Docker
// Hub, because that file overrides registry-mirrors. It must be asked there with the TLS
// settings that dockerd used for it before.
func TestMirrorsOfDockerKeepTheirTLSSettings(t *testing.T) {
	engine.NeedRoot(t)
	each(t, readers, func(t *testing.T, g engine.Generation) {
		address := network.Address4(t, 5000)
		secure := registry.Start(t, registry.Options{Names: []string{mirrorName, ip(address)}, Address: address})
		plain := registry.Start(t, registry.Options{Address: network.Address4(t, 5000)})
		address = network.Address4(t, 5000)
		closed := registry.Start(t, registry.Options{Names: []string{"closed.corp.example", ip(address)}, Address: address, ClientCertificates: true})
		pem := readPEM(t, secure.CA)
		r := newRig(t, rigOptions{generation: g, distrust: true, mirrors: map[string]*registry.Registry{mirrorName: secure, "plain.corp.example": plain, "closed.corp.example": closed}})
		const inList = `"registry-mirrors": ["https://m.corp.example:5000"]`
		for _, c := range []struct {
			name  string
			own   *registry.Registry
			json  string
			files map[string]string
			flags []string
		}{
			{name: "insecure by name", own: secure, json: dockerJSON(g, inList, `"insecure-registries": ["m.corp.example:5000"]`)},
			{name: "insecure by network", own: secure, json: dockerJSON(g, inList, `"insecure-registries": ["`+secure.URL.Hostname()+`/32"]`)},
			{name: "insecure by flags", own: secure, json: dockerJSON(g), flags: []string{"--registry-mirror=https://m.corp.example:5000/", "--insecure-registry=m.corp.example:5000"}},
			{name: "authority", own: secure, json: dockerJSON(g, inList), files: map[string]string{"/etc/docker/certs.d/docker.io/ca.crt": pem}},
			{name: "client certificate", own: closed, json: dockerJSON(g, `"registry-mirrors": ["https://closed.corp.example:5000"]`), files: map[string]string{
				"/etc/docker/certs.d/docker.io/ca.crt":      readPEM(t, closed.CA),
				"/etc/docker/certs.d/docker.io/client.cert": readPEM(t, closed.ClientCert),
				"/etc/docker/certs.d/docker.io/client.key":  readPEM(t, closed.ClientKey),
			}},
			{name: "client certificate of an insecure mirror", own: closed, json: dockerJSON(g, `"registry-mirrors": ["https://closed.corp.example:5000"]`, `"insecure-registries": ["closed.corp.example:5000"]`), files: map[string]string{
				"/etc/docker/certs.d/docker.io/client.cert": readPEM(t, closed.ClientCert),
				"/etc/docker/certs.d/docker.io/client.key":  readPEM(t, closed.ClientKey),
			}},
			{name: "authority and a hosts.toml of one comment", own: secure, json: dockerJSON(g, inList), files: map[string]string{
				"/etc/docker/certs.d/docker.io/ca.crt":     pem,
				"/etc/docker/certs.d/docker.io/hosts.toml": "ca = \"ca.crt\" # of the mirror\n",
			}},
			// dockerd tries https first and falls back to http.
			{name: "insecure without TLS", own: plain, json: dockerJSON(g, `"registry-mirrors": ["https://plain.corp.example:5000/"]`, `"insecure-registries": ["plain.corp.example:5000"]`)},
			{name: "http", own: plain, json: dockerJSON(g, `"registry-mirrors": ["http://plain.corp.example:5000/"]`)},
		} {
			t.Run(c.name, func(t *testing.T) {
				r.put(t, map[string]string{"/etc/docker/daemon.json": c.json})
				r.put(t, c.files)
				r.host.StartDocker(t, c.flags...)
				r.dockerOwn(t, c.own, false, "before apply")
				first := r.takeTree(t)
				r.do(t, 0, "apply")
				r.dockerOwn(t, c.own, true, "after apply")
				r.do(t, 0, "plan")
				r.do(t, 0, "revert")
				r.dockerOwn(t, c.own, false, "after revert")
				r.sameTree(t, "after revert", first)
			})
		}
	})
}

// With one host in its hosts.toml dockerd merges registry-mirrors into it, with two it does
// not: sidemirror's table makes it two.
func TestMirrorsOfDockerAreCarriedIntoAHostsFileWithoutHosts(t *testing.T) {
	engine.NeedRoot(t)
	each(t, readers, func(t *testing.T, g engine.Generation) {
		own := registry.Start(t, registry.Options{})
		r := newRig(t, rigOptions{generation: g})
		for name, content := range map[string]string{
			"server":             "server = \"https://registry-1.docker.io\"\n",
			"server and setting": "server = \"https://registry-1.docker.io\"\nskip_verify = false\n",
			"comment":            "# nothing here yet\n",
			"empty table":        "[host]\n",
			"empty":              "",
		} {
			t.Run(name, func(t *testing.T) {
				r.put(t, map[string]string{
					"/etc/docker/daemon.json":                  dockerJSON(g, fmt.Sprintf(`"registry-mirrors": [%q]`, own.URL)),
					"/etc/docker/certs.d/docker.io/hosts.toml": content,
				})
				r.host.StartDocker(t)
				r.dockerOwn(t, own, false, "before apply")
				first := r.takeTree(t)
				_, _, code := r.run(t, "apply")
				// An [host] table of another shape is refused, which is safe too.
				r.dockerOwn(t, own, code == 0, "after apply")
				if name != "empty table" && code != 0 {
					t.Errorf("apply: exit code %d", code)
				}
				r.do(t, 0, "revert")
				r.sameTree(t, "after revert", first)
			})
		}
	})
}

// An admin may have written sidemirror's own address into registry-mirrors by hand.
func TestSidemirrorsOwnAddressInRegistryMirrorsIsRecognised(t *testing.T) {
	engine.NeedRoot(t)
	each(t, []engine.Generation{engine.Bookworm, engine.Sid, engine.Built}, func(t *testing.T, g engine.Generation) {
		own := registry.Start(t, registry.Options{})
		r := newRig(t, rigOptions{generation: g})
		for _, address := range []string{"http://127.0.0.1:305/", "http://127.0.0.1:305", "http://localhost:305/", "HTTP://127.0.0.1:305/"} {
			t.Run(address, func(t *testing.T) {
				r.put(t, map[string]string{"/etc/docker/daemon.json": dockerJSON(g, fmt.Sprintf(`"registry-mirrors": [%q, %q]`, address, own.URL))})
				r.host.StartDocker(t)
				first := r.takeTree(t)
				r.do(t, 0, "apply")
				r.do(t, 0, "plan")
				r.do(t, 0, "apply")
				if got := r.byDocker(t, ""); got != viaSidemirror {
					t.Errorf("after apply Docker pulls from Docker Hub %s", got)
				}
				r.dockerOwn(t, own, true, "after apply")
				r.host.StartDocker(t)
				r.dockerOwn(t, own, true, "after apply and a restart of Docker")
				r.do(t, 0, "revert")
				// sidemirror's address goes, although the admin wrote it: nothing serves it then.
				if left := withoutDaemonJSON(first.unlike(r.takeTree(t))); len(left) > 0 {
					t.Errorf("after revert, the tree is not what it was:\n%s", strings.Join(left, "\n"))
				}
				r.host.StartDocker(t)
				r.dockerOwn(t, own, false, "after revert and a restart of Docker")
				if mirrors := r.info(t).RegistryConfig.Mirrors; len(mirrors) == 0 || !strings.Contains(mirrors[len(mirrors)-1], own.Host) {
					t.Errorf("after revert Docker has the mirrors %q", mirrors)
				}
			})
		}
	})
}

func readPEM(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
