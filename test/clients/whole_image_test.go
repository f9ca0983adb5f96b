package clients_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// mirroredBy makes a registries.conf by which reg.test is the registry at an address, with sidemirror as
// its mirror.
func (s *stage) mirroredBy(registry *quirky.Server) string {
	file := filepath.Join(s.t.TempDir(), "registries.conf")
	write(s.t, file, fmt.Sprintf("[[registry]]\nprefix = %q\nlocation = %q\ninsecure = true\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n",
		name, strings.TrimPrefix(registry.URL(), "http://"), s.side.Address()+"/"+name))
	return file
}

// The library containers/image chooses a mirror by its manifest, and never leaves it after that.
func TestClientsThatNeverLeaveAMirrorPullFromTheRegistryWhatSidemirrorCannotServe(t *testing.T) {
	engine.NeedRoot(t)
	for what, blobs := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"every blob is missing": func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "no blob", http.StatusNotFound)
			return true
		},
		"every blob is forbidden": func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		},
		"the storage is out of order": func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		},
		"the storage is out of reach": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "http://127.0.0.1:1/blob", http.StatusTemporaryRedirect)
			return true
		},
		"the storage hangs": func(_ http.ResponseWriter, r *http.Request) bool {
			<-r.Context().Done()
			return true
		},
		"too many requests": func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := newStage(t, engines{}, quirky.Options{Intercept: func(_ quirky.Part, w http.ResponseWriter, r *http.Request) bool {
				return strings.Contains(r.URL.Path, "/blobs/") && blobs(w, r)
			}}, nil)
			registry := quirky.New(t, quirky.Options{})
			image := quirky.NewImage(false, "whole", 1000, 2000)
			for _, server := range []*quirky.Server{s.up, registry} {
				server.Add("alice/app", "v1", image)
				server.Add("alice/index", "v1", quirky.NewIndex(false, image))
			}
			for _, repository := range []string{"alice/app", "alice/index"} {
				for _, pull := range s.mirroredPulls(registry, repository) {
					before := len(registry.All())
					if err := pull(); err != nil {
						t.Error(err)
					}
					if len(registry.All()) == before {
						t.Error("the registry was not asked: nothing is shown")
					}
				}
			}
		})
	}
}

func TestClientsThatNeverLeaveAMirrorGetStoredImagesWhileTheRegistryIsAway(t *testing.T) {
	engine.NeedRoot(t)
	s := newStage(t, engines{}, quirky.Options{}, nil)
	registry := quirky.New(t, quirky.Options{})
	s.up.Add("alice/index", "v1", quirky.NewIndex(false, quirky.NewImage(false, "whole", 1000, 2000)))
	for _, when := range []string{"while the registry responds", "while it is away"} {
		for _, pull := range s.mirroredPulls(registry, "alice/index") {
			if err := pull(); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		s.up.Set(func(o *quirky.Options) {
			o.Intercept = func(_ quirky.Part, w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
		})
	}
	if n := len(registry.All()); n > 0 {
		t.Errorf("%d requests went past sidemirror", n)
	}
}

// mirroredPulls are pulls of reg.test by skopeo and podman, which ask sidemirror first, and then the
// registry.
func (s *stage) mirroredPulls(registry *quirky.Server, repository string) (pulls []func() error) {
	dir, err := os.MkdirTemp("", "p") // podman takes no long paths
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	conf, policy, reference := s.mirroredBy(registry), filepath.Join(dir, "policy.json"), name+"/"+repository+":v1"
	write(s.t, policy, `{"default":[{"type":"insecureAcceptAnything"}]}`)
	for _, line := range [][]string{
		{"skopeo", "--registries-conf", conf, "--policy", policy, "copy", "docker://" + reference, "dir:" + filepath.Join(dir, "copy")},
		{"podman", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
			"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none", "pull", "--signature-policy", policy, reference},
	} {
		pulls = append(pulls, func() error {
			out, err := process.Run(s.t.Context(), append(s.env(), "CONTAINERS_REGISTRIES_CONF="+conf), process.Path(s.t, line[0]), line[1:]...)
			if err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			return nil
		})
	}
	return pulls
}
