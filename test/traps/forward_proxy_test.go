package traps

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// proxyPassword is that of tinyproxy's login.
const proxyPassword = "canary.proxy"

// startTinyproxy starts a tinyproxy at an address that knows registry.test, wants a login, and connects
// to one port.
func startTinyproxy(t *testing.T, address, port string) *process.Daemon {
	t.Helper()
	dir := t.TempDir()
	hosts, conf := filepath.Join(dir, "hosts"), filepath.Join(dir, "tinyproxy.conf")
	host, at, _ := net.SplitHostPort(address)
	for file, text := range map[string]string{
		hosts: "127.0.0.1 localhost registry.test\n",
		conf:  fmt.Sprintf("Port %s\nListen %s\nTimeout 600\nLogLevel Info\nBasicAuth corp %s\nConnectPort %s\n", at, host, proxyPassword, port),
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount --bind "$1" /etc/hosts && exec "$0" -d -c "$2"`, process.Path(t, "tinyproxy"), hosts, conf)
	return process.Start(t, "tinyproxy", cmd, func(string) error {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// handOver hands over the engines' proxy as the watching service does.
func handOver(t *testing.T, folder, url string) {
	t.Helper()
	file := filepath.Join(folder, "handover.json")
	text := fmt.Sprintf(`{"version":1,"proxy":{"https":%q,"from":"docker.service"}}`, url)
	if err := os.WriteFile(file+".new", []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func TestTheEnginesForwardProxyIsUsedWithoutARestartAndFollowed(t *testing.T) {
	engine.NeedRoot(t)
	folder, address := t.TempDir(), harness.FreeAddress(t)
	port := ""
	r := startCold(t, quirky.Options{TLS: true}, func(up *quirky.Server, h *harness.Options) {
		_, port, _ = strings.Cut(up.Host(), ":")
		h.Registries[0].Upstreams = []string{"https://registry.test:" + port}
		h.Hosts = "127.0.0.1 localhost\n" // the proxy alone knows the registry
		h.Cache = "none"
		h.Extra = fmt.Sprintf("\n[engine]\nhandover_dir = %q\n", folder)
	})
	manifest := func() int { return r.Get(path("manifests/v1"), nil).Status }
	unreachable := func(when string) {
		t.Helper()
		if got := manifest(); got < http.StatusInternalServerError {
			t.Errorf("%s: status %d", when, got)
		}
	}
	served := func() bool { return manifest() == http.StatusOK }

	unreachable("without a proxy")
	proxy := startTinyproxy(t, address, port)
	handOver(t, folder, "http://corp:canary%2Eproxy@"+address)
	r.Eventually("the manifest comes through the proxy", served)
	r.pull()

	proxy.Stop()
	unreachable("while the proxy is dead")
	proxy = startTinyproxy(t, address, port)
	r.Eventually("the manifest comes through the proxy again", served)

	handOver(t, folder, "http://corp:wrong@"+address)
	r.Eventually("the proxy refuses another login", func() bool { return manifest() >= http.StatusInternalServerError })
	handOver(t, folder, "http://corp:canary%2Eproxy@"+address)
	r.Eventually("the manifest comes through the proxy with the login", served)
	r.pull()
	proxy.Stop()

	log := r.Log()
	for _, want := range []string{"registries are reached through a forward proxy", "http://xxxxx:xxxxx@" + address, "docker.service", "the forward proxy " + address + " refuses its login (401)", "the forward proxy " + address + " cannot be reached: connection refused"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	if strings.Contains(log, "canary") {
		t.Errorf("the log has the password:\n%s", log)
	}
}
