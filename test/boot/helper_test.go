package boot

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/registry"
)

// issuerAddress is where the stand-in for a cloud is, in the machine's network.
const issuerAddress = "127.0.0.1:8999"

// Amazon's own helper, and a plugin that speaks the kubelet's v1, are run by the installed service.
// The cloud is a stand-in on loopback that speaks GetAuthorizationToken.
func TestTheServiceRunsHelpersAndPluginsInItsSandbox(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		t.Run(string(s), func(t *testing.T) {
			t.Parallel()
			p := built(t)
			m, net := freshHost(t, s, p.deb)
			m.run("dpkg --install " + inside(p.deb))
			m.settled()
			m.issuer(net)
			m.step("helper", func(t testing.TB) { m.cloudHelper(t, net) })
			m.step("plugin", func(t testing.TB) { m.kubeletPlugin(t, net) })
			m.step("a helper that the sandbox keeps from working", func(t testing.TB) { m.sandboxedHelper(t) })
		})
	}
}

// issuer starts the cloud: it returns the login of the private registry.
func (m *machine) issuer(n *internet) {
	listener, err := listenIn(m.holder, issuerAddress)
	if err != nil {
		m.t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if !strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetAuthorizationToken") {
			_, _ = io.WriteString(w, n.private.Password)
			return
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_ = json.NewEncoder(w).Encode(map[string]any{"authorizationData": []any{map[string]any{
			"authorizationToken": base64.StdEncoding.EncodeToString([]byte(n.private.User + ":" + n.private.Password)),
			"expiresAt":          float64(time.Now().Add(12 * time.Hour).Unix()),
			"proxyEndpoint":      "https://" + ecr,
		}}})
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	m.owner.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

// install puts a program of this host into the machine.
func (m *machine) install(from, to string) {
	m.t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		m.t.Fatal(err)
	}
	m.write(to, string(data), 0o755)
}

func (m *machine) cloudHelper(t testing.TB, n *internet) {
	m.install(process.Path(t, "docker-credential-ecr-login"), "/usr/local/bin/docker-credential-ecr-login")
	m.write("/etc/sidemirror/config.toml", `[credentials]
helpers = ["*.dkr.ecr.*.amazonaws.com=ecr-login"]
helper_environment = ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_EC2_METADATA_DISABLED"]

[registry."`+ecr+`"]
`, 0o644)
	m.dropIn("[Service]\nEnvironment=AWS_ENDPOINT_URL=http://" + issuerAddress +
		" AWS_ACCESS_KEY_ID=AKIDEXAMPLE AWS_SECRET_ACCESS_KEY=x AWS_REGION=eu-west-1 AWS_EC2_METADATA_DISABLED=true\n")
	m.run("systemctl restart sidemirror.service")
	m.pullsWithoutALogin(t, n, ecr, "helper")
}

func (m *machine) kubeletPlugin(t testing.TB, n *internet) {
	program := filepath.Join(t.TempDir(), "plugin")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../credentials/plugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const corp = "registry.corp.example"
	m.install(program, "/usr/local/bin/credential-providers/corp-plugin")
	m.write("/etc/kubernetes/image-credential-provider/config.yaml", fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: corp-plugin
    matchImages: [%q]
    defaultCacheDuration: 12h
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    env:
      - {name: ISSUER, value: "http://%s/"}
      - {name: LOGIN, value: %q}
      - {name: LIFE, value: 1h}
`, corp, issuerAddress, n.private.User), 0o644)
	m.write("/etc/sidemirror/config.toml", `[credentials]
plugins = "/etc/kubernetes/image-credential-provider/config.yaml"
plugin_dir = "/usr/local/bin/credential-providers"

[registry."`+corp+`"]
`, 0o644)
	m.dropIn("")
	m.run("systemctl restart sidemirror.service")
	m.pullsWithoutALogin(t, n, corp, "plugin")
}

// pullsWithoutALogin pulls a private image, when the engine's file for the registry is written.
func (m *machine) pullsWithoutALogin(t testing.TB, n *internet, host, name string) {
	t.Helper()
	m.eventually("containerd is configured", func() error {
		return m.configured("/etc/containerd/certs.d/" + host + "/hosts.toml")
	})
	repository := "alice/" + name
	n.private.Push(t, repository, "v1", registry.Shape{Size: 1 << 16})
	if err := m.criPull(reference(host, repository)); err != nil {
		t.Errorf("%v\n%s", err, strings.Join(m.journal("sidemirror.service"), "\n"))
	}
	if ours, direct := n.visits(host, repository); ours < 4 || direct != 0 {
		t.Errorf("the registry saw %d requests of ours and %d of containerd's own", ours, direct)
	}
}

// A helper that needs memory which is written and executed, as Java does.
func (m *machine) sandboxedHelper(t testing.TB) {
	program := filepath.Join(t.TempDir(), "helper")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../units/docker-credential-sandboxed")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.install(program, "/usr/local/bin/sandboxed")
	m.write("/usr/local/bin/docker-credential-jit", "#!/bin/sh\n/usr/local/bin/sandboxed execute-written-memory || exit 134\necho '{\"Username\":\"me\",\"Secret\":\"x\"}'\n", 0o755)
	if out, err := m.try("echo " + ghcr + " | /usr/local/bin/docker-credential-jit get"); err != nil {
		t.Fatalf("outside the sandbox it fails too: %v\n%s", err, out)
	}
	m.write("/etc/sidemirror/config.toml", "[credentials]\nhelpers = [\""+ghcr+"=jit\"]\n", 0o644)
	m.run("systemctl restart sidemirror.service")
	_ = m.criPull(reference(ghcr, "alice/none"))
	m.eventually("the service names the directive", func() error {
		out := m.status("")
		for _, want := range []string{"docker-credential-jit failed", "MemoryDenyWriteExecute="} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("status does not have %q:\n%s", want, out)
			}
		}
		return nil
	})
}
