package boot

import (
	"os"
	"strings"
)

// readCerts makes containerd read certs.d for CRI, as those who install Kubernetes
// do; Debian's own configuration has it read nothing.
func (m *machine) readCerts() {
	m.t.Helper()
	const file = "/etc/containerd/config.toml"
	stock, err := os.ReadFile(m.path(file))
	if err != nil {
		m.t.Fatal(err)
	}
	plugin := "io.containerd.grpc.v1.cri"
	if strings.Contains(string(stock), "version = 3") {
		plugin = "io.containerd.cri.v1.images"
	}
	m.write(file, string(stock)+"\n[plugins.\""+plugin+"\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n", 0o644)
}
