package boot

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/registry"
	"github.com/sidemirror/sidemirror/test/units"
)

// helper is a credential helper like those of clouds, in what those of package units do not do: it
// stores a token in its home, and runs a dynamic program of the host that connects to the internet
// by name and TLS.
const helper = `#!/bin/sh
set -eu
read -r server
mkdir -p "$HOME/.cache/helper"
echo token >"$HOME/.cache/helper/token"
openssl s_client -connect "$server:443" -verify_return_error -brief </dev/null
echo "a helper's $1 for $server by $(id -un)"
`

// Other programs in the proxy's sandbox, and credentials that are passed into it.
func TestSandbox(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			p := built(t)
			m, net := freshHost(t, s, p.deb)
			m.run("dpkg --install " + inside(p.deb))
			m.settled()
			m.step("forbidden and allowed", func(t testing.TB) { m.sandboxed(t) })
			m.step("credential helper", func(t testing.TB) { m.helped(t) })
			m.step("name server", func(t testing.TB) { m.resolved(t) })
			m.step("metadata server", func(t testing.TB) { m.askedMetadata(t) })
			m.step("credential of systemd's", func(t testing.TB) { m.credential(t, net) })
		})
	}
}

// sandboxed makes the trials of package units: what a unit runs before its main
// process is in the same sandbox.
func (m *machine) sandboxed(t testing.TB) {
	for _, f := range units.Sandbox(t) {
		m.write(f.Path, string(f.Data), f.Mode)
	}
	m.run("systemctl daemon-reload")
	_, err := m.try("systemctl restart sidemirror.service")
	if err := errors.Join(err, units.Judge(strings.Join(m.journal("sidemirror.service"), "\n"))); err != nil {
		t.Error(err)
	}
	m.run("rm " + units.DropIn + "; systemctl daemon-reload")
}

func (m *machine) helped(t testing.TB) {
	m.write("/usr/local/bin/docker-credential-boot", helper, 0o755)
	m.dropIn("[Service]\nExecStartPre=/bin/sh -c 'echo ghcr.io | docker-credential-boot get'\n")
	_, err := m.try("systemctl restart sidemirror.service")
	log := strings.Join(m.journal("sidemirror.service"), "\n")
	if err != nil || !strings.Contains(log, "a helper's get for ghcr.io by sidemirror") {
		t.Errorf("the helper failed: %v\n%s", err, log)
	}
	if mode := m.run("stat --format=%a:%U /var/lib/sidemirror/.cache/helper/token"); mode != "600:sidemirror\n" {
		t.Errorf("what the helper keeps is %s", mode)
	}
}

// linkLocal is the drop-in that sidemirror writes for its own service.
const linkLocal = "/etc/systemd/system/sidemirror.service.d/link-local.conf"

// resolved has a cloud's name server, at an address that the unit denies until sidemirror's watcher
// has allowed it.
func (m *machine) resolved(t testing.TB) {
	const server = "169.254.169.254"
	m.run("ip address replace " + server + "/32 dev lo")
	m.dropIn("")
	m.run("systemctl stop sidemirror-hosts.service")
	m.write("/etc/resolv.conf", "nameserver "+server+"\n", 0o644)
	m.run("systemctl restart sidemirror.service")
	const says = "may not reach the name server " + server
	if status := m.status(""); !strings.Contains(status, says) {
		t.Errorf("status does not say that no registry can be found:\n%s", status)
	}
	if short := m.status("--short"); !strings.Contains(short, says) && !strings.Contains(short, "more: sidemirror status") {
		t.Errorf("nor does status --short:\n%s", short)
	}
	// The fix that it names, and that the watcher makes on its own.
	for _, fix := range []string{"sidemirror apply", "systemctl start sidemirror-hosts.service"} {
		if plan, _ := m.try("sidemirror plan"); !strings.Contains(plan, linkLocal) || !strings.Contains(plan, "+IPAddressAllow="+server) || !strings.Contains(plan, "then: reload sidemirror") {
			t.Errorf("the plan does not show the drop-in:\n%s", plan)
		}
		m.run(fix)
		m.eventually(fix+" allows the name server", func() error {
			if status := m.status(""); strings.Contains(status, says) || !strings.Contains(m.run("systemctl show --property=IPAddressAllow sidemirror.service"), server) {
				return errors.New(status)
			}
			return nil
		})
		m.run("systemctl stop sidemirror-hosts.service; sidemirror revert --files-only; test ! -e " + linkLocal + " && systemctl is-active sidemirror.service")
		if status := m.status(""); !strings.Contains(status, says) {
			t.Errorf("after the revert it is still allowed:\n%s", status)
		}
	}
	m.run("systemctl start sidemirror-hosts.service")
	m.run("rm /etc/resolv.conf")
	m.eventually("the drop-in goes with the name server", func() error {
		_, err := m.try("test ! -e " + linkLocal)
		return err
	})
	m.run("ip address delete " + server + "/32 dev lo")
}

// askedMetadata has a cloud's metadata server. Only programs that the configuration names reach it.
func (m *machine) askedMetadata(t testing.TB) {
	const server = "169.254.169.254"
	m.run("ip address replace " + server + "/32 dev lo")
	m.dropIn("")
	reach := "systemctl show --value --property=IPAddressAllow sidemirror.service"
	if allowed := m.run(reach); strings.Contains(allowed, server) {
		t.Fatalf("allowed without a helper: %s", allowed)
	}
	m.write("/etc/sidemirror/config.toml", "[credentials]\nhelpers = [\"gcr.io=boot\"]\n", 0o644)
	m.eventually("the drop-in is in force", func() error {
		if allowed := m.run(reach); !strings.Contains(allowed, server) {
			return errors.New(allowed)
		}
		return nil
	})
	m.write("/etc/sidemirror/config.toml", "\n", 0o644)
	m.eventually("the drop-in goes with the helper", func() error {
		if allowed := m.run(reach); strings.Contains(allowed, server) {
			return errors.New(allowed)
		}
		_, err := m.try("test ! -e " + linkLocal)
		return err
	})
	m.run("ip address delete " + server + "/32 dev lo")
}

// dropIn replaces what the administrator adds to the proxy's unit.
func (m *machine) dropIn(text string) {
	m.t.Helper()
	m.write("/etc/systemd/system/sidemirror.service.d/boot.conf", text, 0o644)
	m.run("systemctl daemon-reload")
}

// credential hands root's logins in, which the proxy's user may not read, as the
// unit's comment has it.
func (m *machine) credential(t testing.TB, net *internet) {
	pair := base64.StdEncoding.EncodeToString([]byte(net.private.User + ":" + net.private.Password))
	m.write("/root/.docker/config.json", fmt.Sprintf(`{"auths":{"https://index.docker.io/v1/":{"auth":%q},"ghcr.io":{"auth":%q}}}`, pair, pair), 0o600)
	m.dropIn("[Service]\nLoadCredential=docker-config.json:/root/.docker/config.json\n")
	m.write("/etc/sidemirror/config.toml", "[credentials]\nfiles = [\"/run/credentials/sidemirror.service/docker-config.json\"]\n", 0o644)
	m.run("systemctl reset-failed sidemirror.service; systemctl restart sidemirror.service") // it was restarted often before
	// Not through docker's client, which would take the logins itself and hand them on.
	repository := "alice/credential"
	net.private.Push(t, repository, "v1", registry.Shape{Size: 1 << 16})
	if err := m.criPull(reference(ghcr, repository)); err != nil {
		t.Errorf("%v\n%s", err, strings.Join(m.journal("sidemirror.service"), "\n"))
	}
	if ours, direct := net.visits(ghcr, repository); ours < 4 || direct != 0 {
		t.Errorf("the registry saw %d requests of ours and %d of containerd's own", ours, direct)
	}
}
