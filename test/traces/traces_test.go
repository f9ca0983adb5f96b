// Package traces lets engines pull through sidemirror while it sends traces to a receiver, and checks
// that each pull is one trace with everything in it.
package traces

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/registry"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	manifests = "GET /v2/{name}/manifests/{reference}"
	blobs     = "GET /v2/{name}/blobs/{digest}"
)

// rig is a daemon that sends traces, in front of a private registry with TLS and a token server.
type rig struct {
	*harness.Sidemirror
	receiver *receiver
	upstream *registry.Registry
	image    registry.Image
	options  harness.Options
}

// start runs all that serves the upstream's images as those of a registry.
func start(t *testing.T, name string) *rig {
	t.Helper()
	r := &rig{receiver: startReceiver(t)}
	r.upstream = registry.Start(t, registry.Options{Private: true, Names: []string{"127.0.0.1"}})
	r.image = r.upstream.Push(t, "alice/app", "v1", registry.Shape{Index: true, Size: 2 << 20, Layers: 3})
	at := *r.upstream.URL
	at.Host = "localhost:" + at.Port() // to be looked up
	r.options = harness.Options{
		Listen:     []string{harness.FreeAddress(t)},
		Cache:      t.TempDir(),
		Registries: []harness.Registry{{Name: name, Upstreams: []string{at.String()}, CA: r.upstream.CA, Realms: []string{r.upstream.Realm}}},
		Logins:     map[string]string{name: r.upstream.User + ":" + r.upstream.Password},
		Env:        []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.receiver.URL, "OTEL_EXPORTER_OTLP_HEADERS=api-key=hunter2", "OTEL_BSP_SCHEDULE_DELAY=100"},
		Secrets:    []string{"hunter2"},
	}
	r.Sidemirror = harness.Start(t, r.options)
	return r
}

// check checks that a trace has the whole pull of the image by an engine, and that all layers came
// from one of the sources.
func (r *rig) check(t *testing.T, pull tree, engineName string, sources ...string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("the trace:\n%s", pull)
		}
	}()
	roots := pull.with("pull")
	if len(roots) != 1 || roots[0].attributes["sidemirror.engine"] != engineName || !strings.Contains(roots[0].attributes["container.image.tags"], "v1") {
		t.Errorf("the roots are %v", roots)
	}
	for _, digest := range r.image.Platform {
		of := slices.DeleteFunc(append(pull.with(manifests), pull.with(blobs)...), func(s span) bool {
			return s.attributes["oci.manifest.digest"] != digest && s.attributes["sidemirror.blob.digest"] != digest
		})
		if len(of) == 0 {
			t.Errorf("there is no request for %s", digest)
		}
	}
	for _, s := range pull.with(blobs) {
		if a := s.attributes; !slices.Contains(sources, a["sidemirror.source"]) || a["http.response.body.size"] == "0" || a["http.response.status_code"] != "200" {
			t.Errorf("a layer is %v", a)
		}
	}
	for _, s := range pull {
		text := s.Name + fmt.Sprint(s.Status, s.attributes)
		for _, secret := range []string{r.upstream.Password, "Bearer", "Basic", "hunter2", "?"} {
			if strings.Contains(text, secret) {
				t.Errorf("a span has %q: %s", secret, text)
			}
		}
		if len(s.ParentSpanId) == 0 && s.Name != "pull" {
			t.Errorf("%s belongs to nothing", s.Name)
		}
	}
}

// checkUpstream checks that a trace has the token, the requests to the upstream, and the connections.
func (r *rig) checkUpstream(t *testing.T, pull tree) {
	t.Helper()
	for _, want := range []string{"token", "token > GET", "token > GET > TLS handshake", manifests + " > GET", "GET > DNS lookup", "GET > connect", "GET > TLS handshake"} {
		if len(pull.with(want)) == 0 {
			t.Errorf("there is no span %q in\n%s", want, pull)
		}
	}
	var fetched []string
	for _, s := range pull.with("GET") {
		if at := s.attributes["url.full"]; s.attributes["http.response.status_code"] == "200" {
			fetched = append(fetched, at)
		}
	}
	for _, digest := range r.image.Platform {
		if !slices.ContainsFunc(fetched, func(at string) bool { return strings.HasSuffix(at, digest) }) {
			t.Errorf("no request to the upstream brought %s: %q", digest, fetched)
		}
	}
}

// hosts returns a folder of hosts.toml files that lead containerd to sidemirror for a registry.
func hosts(t *testing.T, name, sidemirror string) string {
	t.Helper()
	folder := t.TempDir()
	path := filepath.Join(folder, name, "hosts.toml")
	text := fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", sidemirror)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return folder
}

func TestAPullByContainerdIsOneTrace(t *testing.T) {
	engine.NeedRoot(t)
	r := start(t, "reg.test")
	for range 2 { // the second containerd gets all from the cache
		c := engine.StartContainerd(t, hosts(t, "reg.test", r.URL()))
		if err := c.Pull(t.Context(), "reg.test/alice/app:v1", ""); err != nil {
			t.Fatal(err)
		}
		r.Stop() // it sends what is left
		r.Sidemirror = harness.Start(t, r.options)
	}
	r.Stop()
	traces := r.receiver.traces("reg.test/alice/app")
	if len(traces) != 2 || traces[0].id() == traces[1].id() {
		t.Fatalf("two pulls made %d traces", len(traces))
	}
	r.check(t, traces[0], "containerd", "upstream", "prefetch")
	r.checkUpstream(t, traces[0])
	r.check(t, traces[1], "containerd", "cache")
}

func TestAPullByDockerIsOneTrace(t *testing.T) {
	engine.NeedRoot(t)
	r := start(t, "docker.io")
	config := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(config, fmt.Appendf(nil, `{"registry-mirrors": [%q]}`, r.URL()), 0o600); err != nil {
		t.Fatal(err)
	}
	docker := engine.StartDocker(t, engine.DockerOptions{Config: config})
	if err := docker.Pull(t.Context(), "alice/app:v1", ""); err != nil {
		t.Fatal(err)
	}
	r.Stop()
	traces := r.receiver.traces("docker.io/alice/app")
	if len(traces) != 1 {
		t.Fatalf("a pull made %d traces", len(traces))
	}
	r.check(t, traces[0], "docker", "upstream", "prefetch")
	r.checkUpstream(t, traces[0])
}

func TestARequestBelongsToTheTraceOfItsEngine(t *testing.T) {
	r := start(t, "reg.test")
	const id = "0af7651916cd43dd8448eb211c80319c"
	header := http.Header{"Traceparent": {"00-" + id + "-b7ad6b7169203331-01"}, "User-Agent": {"containerd/2.4"}}
	r.Get("/v2/alice/app/manifests/v1?ns=reg.test", header).Is(t, "the manifest", http.StatusOK)
	r.Stop()
	var names []string
	for _, s := range r.receiver.spans {
		if got := fmt.Sprintf("%x", s.TraceId); got != id {
			t.Errorf("%s belongs to %s", s.Name, got)
		}
		names = append(names, s.Name)
	}
	if !slices.Contains(names, manifests) || !slices.Contains(names, "token") || slices.Contains(names, "pull") {
		t.Errorf("the spans are %q", names)
	}
}

func TestPullsGoOnWithoutTheReceiver(t *testing.T) {
	r := start(t, "reg.test")
	r.receiver.Close()
	for _, digest := range r.image.Platform[1:] {
		r.Get("/v2/alice/app/blobs/"+digest+"?ns=reg.test", nil).Is(t, "a layer", http.StatusOK)
	}
	r.Stop()
}
