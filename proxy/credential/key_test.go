package credential

import (
	"strings"
	"testing"
)

func TestKeysOfEveryToolMeanTheirRegistry(t *testing.T) {
	for _, tt := range []struct{ key, registry, namespace string }{
		{"quay.io", "quay.io", ""},
		{"Quay.IO", "quay.io", ""},
		{"quay.io/", "quay.io", ""},
		{"quay.io/org", "quay.io", "org"},
		{"quay.io/org/team/image", "quay.io", "org/team/image"},
		{"https://quay.io/org", "quay.io", "org"},
		{"HTTPS://quay.io", "quay.io", ""},
		{"http://registry.corp.example:5000", "registry.corp.example:5000", ""},
		{"registry.corp.example:5000/v2", "registry.corp.example:5000", ""},
		{"https://registry.corp.example/v1/", "registry.corp.example", ""},
		{"https://registry.corp.example/v2/", "registry.corp.example", ""},
		{"registry.corp.example/v2/org", "registry.corp.example", "v2/org"},
		{"https://index.docker.io/v1/", "docker.io", ""},
		{"index.docker.io", "docker.io", ""},
		{"registry-1.docker.io", "docker.io", ""},
		{"docker.io/library", "docker.io", "library"},
		{"localhost:5000", "localhost:5000", ""},
		{"[::1]:5000", "[::1]:5000", ""},
		{"[2001:DB8::1]/org", "[2001:db8::1]", "org"},
		{"ghcr.io/o_o/x--y.z", "ghcr.io", "o_o/x--y.z"},
	} {
		registry, namespace, err := ParseKey(tt.key)
		if err != nil || registry != tt.registry || namespace != tt.namespace {
			t.Errorf("%q: got %q %q %v, want %q %q", tt.key, registry, namespace, err, tt.registry, tt.namespace)
		}
	}
}

func TestWhatIsNoKeyIsRefusedAndNotQuoted(t *testing.T) {
	for _, key := range []string{
		"", "/", "https://", "https:///org", "canary@quay.io", "https://me:canary@quay.io/org", "quay.io?canary",
		"quay.io/canary/../x", "quay.io//canary", "quay.io/Canary", "*.canary.io", "canary quay.io", "quay.io:canary",
		"quay.io:123456", "ftp://canary", "quay.io/org\ncanary", "quay.io/canary\x00", "[::1", "canary.", ".canary", "-canary.io",
		"https://index.docker.io/v1/access-token", "https://index.docker.io/v1/refresh-token",
		strings.Repeat("canary", 300),
	} {
		registry, namespace, err := ParseKey(key)
		if err == nil {
			t.Errorf("%q is taken for %q %q", key, registry, namespace)
		} else if strings.Contains(err.Error(), "anary") {
			t.Errorf("%q is quoted: %v", key, err)
		}
	}
}
