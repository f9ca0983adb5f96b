package boot

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/test/process"
)

// forwardProxy is where the machine's network has its forward proxy, and proxyURL its URL with the
// login that it wants. proxyPassword is that of the login, which the URL writes in another way.
const (
	forwardProxy  = "192.0.2.2:3128"
	proxyURL      = "http://corp:canary%2Epassword@" + forwardProxy
	proxyPassword = "canary.password"
)

// nowhere is an address of the machine's network from which nothing comes back, as behind a firewall.
const nowhere = "203.0.113.1"

// behindProxy takes the internet's names from the machine: they lead nowhere. Only a forward proxy
// knows where they are.
func (m *machine) behindProxy() {
	m.t.Helper()
	m.run("ip address add " + strings.TrimSuffix(forwardProxy, ":3128") + "/32 dev lo && ip route add 203.0.113.0/24 dev lo")
	m.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"+nowhere+" "+strings.Join(names, " ")+"\n", 0o644)
}

// startProxy starts a tinyproxy in the machine's network.
func (m *machine) startProxy() *process.Daemon {
	m.t.Helper()
	dir := m.t.TempDir()
	hosts, conf := filepath.Join(dir, "hosts"), filepath.Join(dir, "tinyproxy.conf")
	host, port, _ := net.SplitHostPort(forwardProxy)
	for file, text := range map[string]string{
		hosts: "127.0.0.1 localhost\n" + outside + " " + strings.Join(names, " ") + "\n",
		conf: "Port " + port + "\nListen " + host + "\nTimeout 600\nMaxClients 200\nLogLevel Info\n" +
			"BasicAuth corp " + proxyPassword + "\nConnectPort 443\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			m.t.Fatal(err)
		}
	}
	cmd := exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", m.holder), "unshare", "--mount", "sh", "-c",
		`mount --bind "$1" /etc/hosts && exec "$0" -d -c "$2"`, process.Path(m.t, "tinyproxy"), hosts, conf)
	return process.Start(m.t, "tinyproxy", cmd, func(string) error {
		_, err := m.try(fmt.Sprintf("timeout 2 bash -c '</dev/tcp/%s/%s'", host, port))
		return err
	})
}

// engineProxy gives both engines the proxy, by drop-ins of their units, and puts these in force. It
// takes the drop-ins away if the URL is empty.
func (m *machine) engineProxy(url string) {
	m.t.Helper()
	for _, unit := range []string{"docker", "containerd"} {
		file := "/etc/systemd/system/" + unit + ".service.d/http-proxy.conf"
		if url == "" {
			m.run("rm -rf " + filepath.Dir(file))
			continue
		}
		m.write(file, fmt.Sprintf("[Service]\nEnvironment=HTTPS_PROXY=%s NO_PROXY=10.0.0.0/8,.internal.example\n", strings.ReplaceAll(url, "%", "%%")), 0o644)
	}
}

// timed returns how long a pull took, which must succeed.
func (m *machine) timed(p puller, reference string) time.Duration {
	m.t.Helper()
	began := time.Now()
	if err := p.pull(m, reference); err != nil {
		m.t.Errorf("%s: %v", p.name, err)
	}
	return time.Since(began)
}
