package boot

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// examined is what the tests read of "sidemirror doctor --json".
type examined struct {
	OK     bool
	Chains []struct {
		Kind, Name string
		Links      []struct {
			Name, State string
			Problems    []struct{ Code, Hint string }
		}
	}
}

// broken lists the broken links: "engine docker/test pull: test-pull-failed".
func (e examined) broken() (list []string) {
	for _, c := range e.Chains {
		for _, l := range c.Links {
			for _, p := range l.Problems {
				name, _, _ := strings.Cut(c.Name, " ")
				list = append(list, c.Kind+" "+name+"/"+l.Name+": "+p.Code)
			}
		}
	}
	return list
}

// doctor runs "sidemirror doctor --json".
func (m *machine) doctor() (examined, error) {
	m.t.Helper()
	out, _ := m.try("sidemirror doctor --json")
	var e examined
	// What the shell adds after the output is no JSON.
	err := json.NewDecoder(strings.NewReader(out)).Decode(&e)
	return e, err
}

// breakage is something that is wrong with a host.
type breakage struct {
	name    string
	do      string // a script that breaks the host
	undo    string
	network func(net *internet, broken bool) // what is wrong outside of the host
	passing bool                             // the network is right again before doctor looks
	ports   int                              // what every user may listen at, from here on
	want    string                           // the broken link
}

// configuration is a script that writes a configuration.
func configuration(text string) string {
	return "printf '%s\\n' '" + text + "' >/etc/sidemirror/config.toml"
}

// emptyCache is a script that mounts an empty file system where the cache is.
func emptyCache(options string) string {
	return "systemctl stop sidemirror.service && mount -t tmpfs " + options + ",mode=0700,uid=$(id -u sidemirror) tmpfs " + cacheFolder + " && systemctl start sidemirror.service"
}

const unmounted = "systemctl stop sidemirror.service && umount " + cacheFolder + " && systemctl start sidemirror.service"

// stateFolder is where the last good configuration and plain logins are.
const stateFolder = "/var/lib/sidemirror"

// fullTemp makes a file system without room for a single folder of what services have for theirs.
const fullTemp = "mount -t tmpfs -o mode=1777,nr_inodes=1 tmpfs /var/tmp; if mkdir /var/tmp/x 2>/dev/null; then exit 1; fi; "

// noConfiguration leaves the defaults, except that a disk of this machine may be nearly full.
const noConfiguration = "echo 'cache.min_free = \"1MiB\"' >/etc/sidemirror/config.toml"

// breakages are of a host with Docker, and with containerd as the kubelet uses it.
var breakages = []breakage{
	{name: "the configuration is faulty", do: configuration("lissten = 1"), undo: noConfiguration,
		want: "service sidemirror/configuration: configuration-not-in-force"},
	{name: "sidemirror is stopped", do: "systemctl stop sidemirror.socket sidemirror.service", undo: "systemctl start sidemirror.socket",
		want: "service sidemirror/service: proxy-down"},
	{name: "another user has the port",
		ports: 305, do: "systemctl stop sidemirror.socket sidemirror.service; " +
			"systemd-run --quiet --unit=squatter --uid=daemon perl -MSocket -e '" +
			`socket(S, PF_INET, SOCK_STREAM, 0); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1); bind(S, sockaddr_in(305, inet_aton("127.0.0.1"))) or die; listen(S, 9); sleep 600'`,
		undo: "systemctl stop squatter; systemctl start sidemirror.socket",
		want: "service sidemirror/service: proxy-port-taken"},
	{name: "a firewall is on loopback", do: "iptables -I OUTPUT -o lo -p tcp --dport 305 -j DROP", undo: "iptables -D OUTPUT -o lo -p tcp --dport 305 -j DROP",
		want: "service sidemirror/service: proxy-down"},
	{name: "another tool writes daemon.json", do: "systemctl stop sidemirror-hosts; echo '{}' >/etc/docker/daemon.json", undo: "systemctl start sidemirror-hosts",
		want: "engine docker/configuration: files-pending"},
	{name: "containerd's config_path is empty",
		do: "echo runtime-endpoint: unix:///run/containerd/containerd.sock >/etc/crictl.yaml; " +
			"sed -i 's|config_path = .*|config_path = \"\"|' /etc/containerd/config.toml; systemctl restart containerd",
		undo: "rm /etc/crictl.yaml; sed -i 's|config_path = .*|config_path = \"/etc/containerd/certs.d\"|' /etc/containerd/config.toml; systemctl restart containerd",
		want: "engine containerd/configuration: containerd-config-path"},
	{name: "a hosts.toml is no TOML",
		do:   "systemctl stop sidemirror-hosts; cp /etc/containerd/certs.d/docker.io/hosts.toml /root; echo '[[' >/etc/containerd/certs.d/docker.io/hosts.toml",
		undo: "cp /root/hosts.toml /etc/containerd/certs.d/docker.io/; systemctl start sidemirror-hosts",
		want: "engine containerd/configuration: toml-syntax"},
	{name: "the registry refuses the login",
		do: `echo '{"auths":{"ghcr.io":{"auth":"bWU6d3Jvbmc="}}}' >/etc/sidemirror/logins.json; chgrp sidemirror /etc/sidemirror/logins.json; chmod 640 /etc/sidemirror/logins.json; ` + configuration(`credentials.files = ["/etc/sidemirror/logins.json"]`), undo: noConfiguration,
		want: "registry ghcr.io/login: login-refused"},
	{name: "a credential helper is missing",
		do: `echo '{"credHelpers":{"ghcr.io":"missing"}}' >/etc/sidemirror/logins.json; chgrp sidemirror /etc/sidemirror/logins.json; chmod 640 /etc/sidemirror/logins.json; ` + configuration(`credentials.files = ["/etc/sidemirror/logins.json"]`), undo: noConfiguration,
		want: "registry ghcr.io/login: helper-missing"},
	{name: "a credential helper is too slow",
		do: `printf '#!/bin/sh\nsleep 600\n' >/usr/local/bin/docker-credential-slow; chmod 755 /usr/local/bin/docker-credential-slow; ` +
			`echo '{"credHelpers":{"ghcr.io":"slow"}}' >/etc/sidemirror/logins.json; chgrp sidemirror /etc/sidemirror/logins.json; chmod 640 /etc/sidemirror/logins.json; ` + configuration(`credentials.files = ["/etc/sidemirror/logins.json"]`),
		undo: noConfiguration, want: "registry ghcr.io/login: helper-failed"},
	{name: "the upstream does not speak TLS",
		do: `systemd-run --quiet --expand-environment=no --unit=plain perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalAddr => "127.0.0.1:8080", Listen => 9, ReuseAddr => 1) or die; ` +
			`while ($c = $s->accept) { sysread $c, $b, 999; print $c "HTTP/1.0 400 Bad Request\r\n\r\n"; close $c }'; ` +
			configuration(`registry."ghcr.io".upstreams = ["https://127.0.0.1:8080"]`),
		undo: "systemctl stop plain; " + noConfiguration,
		want: "registry ghcr.io/certificate: upstream-not-tls"},
	{name: "the upstream's authority is not known",
		do:   "mv /etc/ssl/certs/ca-certificates.crt /root; touch /etc/ssl/certs/ca-certificates.crt; systemctl restart sidemirror",
		undo: "mv /root/ca-certificates.crt /etc/ssl/certs/; systemctl restart sidemirror",
		want: "registry docker.io/certificate: upstream-ca-unknown"},
	{name: "the upstream's name is unknown to its certificate", do: configuration(`registry."ghcr.io".upstreams = ["https://` + outside + `"]`), undo: noConfiguration,
		want: "registry ghcr.io/certificate: upstream-certificate-name"},
	{name: "the name servers are away", do: "echo nameserver 127.0.0.9 >/etc/resolv.conf; " + configuration(`registry."r.example".upstreams = ["https://r.example"]`),
		undo: "rm /etc/resolv.conf; " + noConfiguration, want: "registry r.example/host name: name-servers-silent"},
	{name: "the proxy settings are wrong",
		do: "mkdir -p /run/systemd/system/sidemirror.service.d; printf '[Service]\\nEnvironment=HTTPS_PROXY=http://127.0.0.1:9\\n' >/run/systemd/system/sidemirror.service.d/x.conf; " +
			"systemctl daemon-reload; systemctl restart sidemirror",
		undo: "rm -r /run/systemd/system/sidemirror.service.d; systemctl daemon-reload; systemctl restart sidemirror",
		want: "registry docker.io/connection: proxy-unreachable"},
	{name: "the cache becomes read-only", do: emptyCache("-o size=9m") + " && mount -o remount,ro " + cacheFolder, undo: unmounted,
		want: "service sidemirror/disk: cache-read-only"},
	{name: "the cache is read-only at the start", do: emptyCache("-o size=9m") + " && mount -o remount,ro " + cacheFolder + " && systemctl restart sidemirror.service", undo: unmounted,
		want: "service sidemirror/disk: cache-read-only"},
	{name: "the folder of the cache cannot be created", do: "systemctl stop sidemirror.service; mount -t tmpfs -o ro tmpfs /var/cache; systemctl start sidemirror.service",
		undo: "systemctl stop sidemirror.service; umount /var/cache; systemctl start sidemirror.service", want: "service sidemirror/disk: cache-missing"},
	{name: "the folder of the state is read-only", do: "systemctl stop sidemirror.service; mount -t tmpfs -o ro tmpfs " + stateFolder + "; systemctl start sidemirror.service",
		undo: "systemctl stop sidemirror.service; umount " + stateFolder + "; systemctl start sidemirror.service", want: "service sidemirror/own report: state-unwritable"},
	{name: "the disk is full at the start", do: emptyCache("-o size=8m") + "; head -c 9m /dev/zero >" + cacheFolder + "/x || true; " + fullTemp + "systemctl restart sidemirror.service sidemirror-hosts.service",
		undo: unmounted + "; umount /var/tmp", want: "service sidemirror/disk: cache-disk-full"},
	{name: "the sandbox denies a link-local name server", do: "ip address replace 169.254.169.253/32 dev lo; systemctl stop sidemirror-hosts; echo nameserver 169.254.169.253 >/etc/resolv.conf; systemctl restart sidemirror",
		undo: "ip address delete 169.254.169.253/32 dev lo; rm /etc/resolv.conf; systemctl start sidemirror-hosts; systemctl restart sidemirror", want: "service sidemirror/own report: name-server-denied"},
	{name: "the sandbox denies a link-local name server of IPv6", do: "ip address replace fe80::1/64 dev lo; systemctl stop sidemirror-hosts; echo nameserver fe80::1%lo >/etc/resolv.conf; systemctl restart sidemirror",
		undo: "ip address delete fe80::1/64 dev lo; rm /etc/resolv.conf; systemctl start sidemirror-hosts; systemctl restart sidemirror", want: "service sidemirror/own report: name-server-denied"},
	{name: "the clock is wrong by a day", network: func(net *internet, broken bool) { net.pretend(broken, 0) },
		want: "registry docker.io/clock: clock-wrong"},
	{name: "the rate limit is used up", network: func(net *internet, broken bool) { net.pretend(false, map[bool]int{true: 429}[broken]) },
		want: "registry docker.io/response: upstream-rate-limited"},
	{name: "no pulls remain of the rate limit", network: func(net *internet, broken bool) { net.pretend(false, map[bool]int{true: 429}[broken]) },
		do: "docker pull --quiet acme/limited 2>/dev/null || :", passing: true, undo: "systemctl restart sidemirror.service",
		want: "registry docker.io/rate limit: rate-limit-used-up"},
	{name: "the registry fails", network: func(net *internet, broken bool) { net.pretend(false, map[bool]int{true: 503}[broken]) },
		want: "registry docker.io/response: upstream-failing"},
	{name: "the registry cannot be reached", do: "iptables -I OUTPUT -p tcp -d " + outside + " -j REJECT --reject-with tcp-reset",
		undo: "iptables -D OUTPUT -p tcp -d " + outside + " -j REJECT --reject-with tcp-reset", want: "registry docker.io/connection: upstream-unreachable"},
	{name: "Docker pulls past sidemirror", do: "iptables -t nat -I OUTPUT -o lo -p tcp --dport 305 -m owner --uid-owner root -m cgroup --path system.slice/docker.service -j REDIRECT --to-ports 9",
		undo: "iptables -t nat -F OUTPUT; systemctl restart docker", want: "engine docker/test pull: test-pull-failed"},
}

func TestDoctorNamesTheBrokenLink(t *testing.T) {
	t.Parallel()
	p := built(t)
	m, net := freshHost(t, trixie, p.deb)
	m.run("dpkg --install " + inside(p.deb))
	m.settled()
	m.run(noConfiguration)
	m.healthy()
	m.step("folders that are gone are created again", func(t testing.TB) {
		m.run("systemctl stop sidemirror.service; rm -r " + cacheFolder + " " + stateFolder + "; systemctl start sidemirror.service")
		m.healthy()
		if made := m.run("stat --format=%a:%U:%G " + cacheFolder + " " + stateFolder); made != strings.Repeat("700:sidemirror:sidemirror\n", 2) {
			t.Errorf("they are %s", made)
		}
	})
	m.step("a folder of root's, as a new disk has", func(testing.TB) {
		m.run("systemctl stop sidemirror.service; mount -t tmpfs -o size=9m tmpfs " + cacheFolder + "; systemctl start sidemirror.service")
		defer m.run(unmounted)
		m.healthy()
	})
	m.step("a link to another folder", func(testing.TB) {
		m.run("systemctl stop sidemirror.service; mv " + cacheFolder + " /srv/cache; ln -s /srv/cache " + cacheFolder + "; systemctl start sidemirror.service")
		defer m.run("systemctl stop sidemirror.service; rm " + cacheFolder + "; mv /srv/cache " + cacheFolder + "; systemctl start sidemirror.service")
		m.healthy()
	})
	for _, b := range breakages {
		m.step(b.name, func(t testing.TB) {
			if b.network != nil {
				defer b.network(net, false)
				b.network(net, true)
			}
			if b.do != "" {
				defer m.run(b.undo)
				if b.ports != 0 {
					defer m.portsFrom(1024)
					m.portsFrom(b.ports)
				}
				m.run(b.do)
			}
			if b.passing {
				b.network(net, false)
			}
			m.eventually("doctor names it", func() error {
				e, err := m.doctor()
				if err != nil {
					return err
				}
				list := e.broken()
				if e.OK || len(list) == 0 || !strings.Contains(strings.Join(list, "\n")+"\n", b.want+"\n") {
					return fmt.Errorf("broken are %q, want %q among them", list, b.want)
				}
				return nil
			})
		})
	}
	m.step("all of it repaired", func(testing.TB) { m.healthy() })
}
