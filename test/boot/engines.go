package boot

import "os"

// readCerts makes containerd read certs.d for CRI, as those who install Kubernetes
// do; Debian's own configuration has it read nothing.
func (m *machine) readCerts() {
	m.t.Helper()
	const file = "/etc/containerd/config.toml"
	stock, err := os.ReadFile(m.path(file))
	if err != nil {
		m.t.Fatal(err)
	}
	more := "\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n"
	if m.suite == sid {
		// Enough downloads at a time for many pulls, as in daemonJSON. Before containerd
		// 2.1 this limit is a pull's, since then it is one for all.
		more += "\n[plugins.\"io.containerd.transfer.v1.local\"]\n  max_concurrent_downloads = 40\n"
	}
	m.write(file, string(stock)+more, 0o644)
}
