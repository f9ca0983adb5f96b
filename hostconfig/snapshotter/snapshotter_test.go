package snapshotter

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

func TestWhatIsReportedOfSnapshotters(t *testing.T) {
	const (
		soci   = "/etc/soci-snapshotter-grpc/config.toml"
		stargz = "/etc/containerd-stargz-grpc/config.toml"
		ours   = "host = \"127.0.0.1:305\"\ninsecure = true\n"
		shared = "[remote.mirrors_config]\ndir = \"/etc/containerd/certs.d/\"\n"
	)
	for name, test := range map[string]struct {
		files map[string]string
		codes string // of problems, then of notes
	}{
		"none":              {map[string]string{"/etc/containerd/config.toml": ""}, ";"},
		"SOCI, program":     {map[string]string{"/usr/local/bin/soci-snapshotter-grpc": ""}, "; snapshotter-direct"},
		"SOCI, mirrored":    {map[string]string{soci: "[[resolver.host.\"docker.io\".mirrors]]\n" + ours}, "; snapshotter-mirrored"},
		"stargz, another":   {map[string]string{stargz: "[[resolver.host.\"docker.io\".mirrors]]\nhost = \"mirror.example\"\n"}, "; snapshotter-direct"},
		"stargz, second":    {map[string]string{stargz: "[[resolver.host.\"docker.io\".mirrors]]\nhost = \"mirror.example\"\n[[resolver.host.\"docker.io\".mirrors]]\n" + ours}, "; snapshotter-mirrored"},
		"stargz, wrong":     {map[string]string{stargz: "[[resolver.host.\"ghcr.io\".mirrors]]\n" + ours}, "snapshotter-mirror-wrong; snapshotter-direct"},
		"stargz, invalid":   {map[string]string{stargz: "[resolver"}, "; snapshotter-config-unreadable"},
		"nydus":             {map[string]string{"/etc/nydus/config.toml": "version = 1\n"}, "; snapshotter-direct"},
		"nydus, shared":     {map[string]string{"/etc/nydus/config.toml": shared}, "snapshotter-folder-shared;"},
		"nydus, of its own": {map[string]string{"/etc/nydus/config.toml": "[remote.mirrors_config]\ndir = \"/etc/nydus/certs.d\"\n"}, "; snapshotter-direct"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range test.files {
				at := filepath.Join(dir, file)
				if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			tree, err := hostfs.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			var s engine.State
			Report(&engine.Host{Tree: tree}, &s, "http://127.0.0.1:305", []string{"/etc/containerd/certs.d"})
			var problems, notes []string
			for _, p := range s.Problems {
				problems = append(problems, string(p.Code))
			}
			for _, p := range s.Notes {
				notes = append(notes, string(p.Code))
			}
			if got := strings.TrimSpace(strings.Join(problems, " ") + "; " + strings.Join(notes, " ")); got != test.codes {
				t.Errorf("got %q, want %q", got, test.codes)
			}
		})
	}
}
