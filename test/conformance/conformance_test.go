// Package conformance_test runs the OCI distribution conformance program, reading
// only, against registries and against sidemirror before them.
package conformance_test

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/quirky"
	"github.com/sidemirror/sidemirror/test/registry"
)

func TestMain(m *testing.M) { harness.Main(m) }

// content is what the checks read.
type content struct {
	repository                       string
	tags, manifests, blobs, subjects []string
}

// Whatever a registry does right it must do right through us. Debian's registry
// has no referrers API; the other upstream here has.
func TestNoCheckThatPassesDirectlyFailsThroughUs(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) (string, content){
		"docker-registry": dockerRegistry,
		"with referrers":  withReferrers,
	} {
		t.Run(name, func(t *testing.T) {
			upstream, c := start(t)
			direct := check(t, upstream, c)
			if direct.passed["OCI Conformance Test/read-only/pull/blob-get"] == 0 {
				t.Fatalf("no blob could be read directly, so nothing is proved\n%s", direct.output)
			}
			s := harness.Start(t, harness.Options{Registries: []harness.Registry{
				{Name: "docker.io", Upstreams: []string{"http://" + upstream}},
				{Name: "reg.test", Upstreams: []string{"http://" + upstream}},
			}})
			for form, prefix := range map[string]string{"default registry": "", "prefix": "reg.test/"} {
				t.Run(form, func(t *testing.T) {
					asked := c
					asked.repository = prefix + c.repository
					through := check(t, s.Address(), asked)
					t.Logf("%d checks pass directly, %d through sidemirror", direct.count, through.count)
					for check, times := range direct.passed {
						if got := through.passed[check]; got < times {
							t.Errorf("%s: passes %d times directly, %d through us", check, times, got)
						}
					}
					if t.Failed() {
						t.Log(through.output)
					}
				})
			}
		})
	}
}

func dockerRegistry(t *testing.T) (string, content) {
	r := registry.Start(t, registry.Options{})
	index := r.Push(t, "alice/app", "v1", registry.Shape{Index: true, Size: 1 << 16})
	// OCI's media types both: the program accepts no others, and this registry would
	// turn a Docker manifest to schema 1 for it, which sidemirror refuses.
	single := r.Push(t, "alice/app", "v2", registry.Shape{Size: 1 << 16})
	return r.Host, content{
		repository: "alice/app",
		tags:       []string{"v1", "v2"},
		manifests:  []string{index.Digest, index.Platform[0], single.Digest},
		blobs:      append(index.Platform[1:], single.Platform[1:]...),
	}
}

func withReferrers(t *testing.T) (string, content) {
	s := quirky.New(t, quirky.Options{})
	image := quirky.NewImage(false, "app", 1<<16)
	s.Add("alice/app", "v1", image)
	s.Add("alice/app", "", quirky.NewReferrer(image, "application/vnd.example.signature", "signature"))
	c := content{
		repository: "alice/app",
		tags:       []string{"v1"},
		manifests:  []string{image.Digest.String()},
		subjects:   []string{image.Digest.String()},
	}
	for _, blob := range image.Blobs {
		c.blobs = append(c.blobs, blob.Digest.String())
	}
	return s.Host(), c
}

// result is what the program printed: how often a check of each name passed, and
// its own count of passes.
type result struct {
	passed map[string]int
	count  int
	output string
}

var (
	passed = regexp.MustCompile(`(?m)^ *(OCI Conformance Test/.*): Pass$`)
	count  = regexp.MustCompile(`(?m)^ *Pass\.+: +(\d+)$`)
)

// check runs the program. Its exit status is no use: after printing everything
// it panics when it writes results.yaml for a read-only run.
func check(t *testing.T, host string, c content) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, process.Path(t, "conformance"))
	cmd.Dir = t.TempDir()
	cmd.Env = []string{
		"OCI_REGISTRY=" + host, "OCI_TLS=disabled", "OCI_REPO1=" + c.repository,
		"OCI_API_PUSH=false", "OCI_API_BLOBS_DELETE=false", "OCI_API_MANIFESTS_DELETE=false", "OCI_API_TAGS_DELETE=false",
		"OCI_RO_DATA_TAGS=" + strings.Join(c.tags, " "),
		"OCI_RO_DATA_MANIFESTS=" + strings.Join(c.manifests, " "),
		"OCI_RO_DATA_BLOBS=" + strings.Join(c.blobs, " "),
		"OCI_RO_DATA_REFERRERS=" + strings.Join(c.subjects, " "),
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := result{passed: map[string]int{}, output: stdout.String()}
	for _, found := range passed.FindAllStringSubmatch(r.output, -1) {
		r.passed[found[1]]++
	}
	total := count.FindStringSubmatch(r.output)
	if total == nil {
		t.Fatalf("the conformance program printed no count: %v\n%s%s", err, r.output, stderr.String())
	}
	if _, err := fmt.Sscan(total[1], &r.count); err != nil {
		t.Fatal(err)
	}
	return r
}
