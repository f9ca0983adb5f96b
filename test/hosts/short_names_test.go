package hosts_test

import (
	"fmt"
	"path"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/registry"
)

// The first command of the page, on a host that nothing has configured. Docker of every age asks
// for it in its own way: see moby's distribution package and containerd's resolver. So does ctr.
func TestEnginesPullByPrefixWithEveryFormOfTheName(t *testing.T) {
	for _, g := range engine.Generations() {
		t.Run(string(g), func(t *testing.T) {
			r := newRig(t, rigOptions{generation: g})
			for i, form := range []string{
				"localhost:305/%s", "localhost:305/library/%s", "localhost:305/docker.io/%s",
				"localhost:305/docker.io/library/%s", "127.0.0.1:305/%s",
				"localhost:305/bitnami/%s", "localhost:305/docker.io/bitnami/%s",
				"localhost:305/" + otherName + "/bitnami/%s",
			} {
				image := fmt.Sprintf("image-%d", i)
				repository := "library/" + image
				if path.Base(path.Dir(form)) == "bitnami" {
					repository = "bitnami/" + image
				}
				pushed := r.upstream.Push(t, repository, "v1", registry.Shape{Index: i%2 == 0, Size: 1 << 12})
				name := fmt.Sprintf(form, image)
				if err := r.host.PullDocker(t.Context(), name, "v1", pushed.Digest); err != nil {
					t.Error(err)
				}
				if r.asked(repository) == 0 {
					t.Errorf("%s: sidemirror was not asked for %s", name, repository)
				}
				out, errs, code, err := r.host.Run(t.Context(), "/usr/bin/ctr", "images", "pull", "--plain-http", name+":v1")
				if err != nil || code != 0 {
					t.Errorf("ctr: %s: exit code %d, %v\n%s%s", name, code, err, out, errs)
				}
			}
		})
	}
}
