package pull_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/registry"
)

// A layer larger than any buffer on its way must arrive whole, and an image that
// came through us must run.
func TestALargeImagePulledThroughUsRuns(t *testing.T) {
	engine.NeedRoot(t)
	folder := t.TempDir()
	program := filepath.Join(folder, "hello")
	build := exec.Command("go", "build", "-o", program, "./testdata/hello")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building hello: %v\n%s", err, output)
	}
	hello, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	upstream := registry.Start(t, registry.Options{Private: true})
	s := newStage(t, mode{private: true}, upstream)
	shape := registry.Shape{Index: true, Size: 20 << 20, Hello: hello}
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			image := upstream.Push(t, "alice/large-"+c.name, "v1", shape)
			pullThroughUs(t, s, upstream, c, image, "tag")
		})
	}
	out, err := s.containerd.Run(t.Context(), name+"/alice/large-ctr:v1")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "hello from an image") {
		t.Errorf("the image printed %q", out)
	}
}
