package transfer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// Each blob of an image comes from the registry once, whatever is fetched ahead.
func TestEnginesPullAnImageOfManyLayersWithEachBlobFetchedOnce(t *testing.T) {
	engine.NeedRoot(t)
	image := quirky.NewImage(true, "engines", slices.Repeat([]int{300_000}, 20)...)
	for what, pull := range map[string]func(t *testing.T, p *puller) error{
		"containerd": func(t *testing.T, p *puller) error {
			folder := t.TempDir()
			toml := fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", p.URL())
			path := filepath.Join(folder, name, "hosts.toml")
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(toml), 0o644)); err != nil {
				return err
			}
			return engine.StartContainerd(t, folder).Pull(t.Context(), name+"/"+repo+":v1", "")
		},
		"docker": func(t *testing.T, p *puller) error {
			config := filepath.Join(t.TempDir(), "daemon.json")
			if err := os.WriteFile(config, fmt.Appendf(nil, `{"registry-mirrors": [%q]}`, p.URL()), 0o644); err != nil {
				return err
			}
			return engine.StartDocker(t, engine.DockerOptions{Config: config}).Pull(t.Context(), repo+":v1", "")
		},
	} {
		t.Run(what, func(t *testing.T) {
			p := newPuller(t, image, quirky.Options{}, func(h *harness.Options) {
				h.Registries = append(h.Registries, harness.Registry{Name: "docker.io", Upstreams: h.Registries[0].Upstreams})
			})
			if err := pull(t, p); err != nil {
				t.Fatal(err)
			}
			p.once(20)
		})
	}
}
