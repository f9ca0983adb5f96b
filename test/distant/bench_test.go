package distant

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/network"
	"github.com/sidemirror/sidemirror/test/registry"
)

const (
	name      = "reg.test"
	roundTrip = 50 * time.Millisecond
	rate      = 16 << 20 // bytes/s of each connection
	rounds    = 3
)

// containerdConfig has containerd fetch the parts of large layers in parallel, with whichever of its
// two ways to pull.
const containerdConfig = `version = 3
[plugins."io.containerd.cri.v1.images"]
  concurrent_layer_fetch_buffer = 8388608
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.transfer.v1.local"]
  concurrent_layer_fetch_buffer = 8388608
`

// BenchmarkPulls measures pulls by containerd 2.4, Docker 29 and podman from a registry that is 50 ms
// away. Run it once, as "make bench-engines" does: each part reports the seconds of one pull, what
// the registry sent, and how many requests it had.
func BenchmarkPulls(b *testing.B) {
	r := newRig(b)
	shapes := []shape{{"layers", registry.Shape{Size: 2 << 20, Layers: 20}}, {"large", registry.Shape{Size: 64 << 20}}}
	engines := []puller{r.containerd(), r.docker()}
	for _, e := range engines {
		for _, s := range shapes {
			r.measure(b, e, s, "direct", false)
		}
	}
	r.measurePartial(b, "direct", false)
	r.mirror(b)
	for _, e := range engines {
		for _, s := range shapes {
			r.measure(b, e, s, "through", true)
		}
	}
	r.measurePartial(b, "through", true)
}

// shape is a kind of image.
type shape struct {
	name string
	registry.Shape
}

// puller is an engine that pulls an image from reg.test and forgets it.
type puller struct {
	name   string
	pull   func(tb testing.TB, repository, digest string) error
	forget func(tb testing.TB, repository string) error
}

// rig is a host with the newest engines, a registry, a link to it, and a sidemirror that the engines
// do not know at first.
type rig struct {
	host       *engine.Host
	registry   *registry.Registry
	link       *Link
	sidemirror *harness.Sidemirror
	images     int
}

func newRig(b *testing.B) *rig {
	b.Helper()
	engine.NeedRoot(b)
	near, far := network.Address4(b, 443), network.Address4(b, 443)
	nearIP, farIP := strings.TrimSuffix(near, ":443"), strings.TrimSuffix(far, ":443")
	r := &rig{registry: registry.Start(b, registry.Options{Names: []string{name, nearIP, farIP}, Address: near})}
	r.link = Listen(b, far, near, roundTrip, rate)
	r.sidemirror = harness.Start(b, harness.Options{
		Listen:     []string{"127.0.0.1:305"},
		Registries: []harness.Registry{{Name: name, Upstreams: []string{"https://" + farIP}, CA: r.registry.CA}},
	})
	config, err := os.ReadFile(filepath.Join(r.sidemirror.Dir(), "config.toml"))
	if err != nil {
		b.Fatal(err)
	}
	r.host = engine.StartHost(b, engine.HostOptions{
		Generation: engine.Built,
		CA:         r.registry.CA,
		Program:    harness.Binary(b),
		Files: map[string]string{
			"/etc/hosts":                  "127.0.0.1 localhost\n" + farIP + " " + name + "\n",
			"/etc/sidemirror/config.toml": string(config),
			"/etc/containerd/config.toml": containerdConfig,
			"/etc/containers/policy.json": `{"default":[{"type":"insecureAcceptAnything"}]}`,
		},
	})
	r.host.StartContainerd(b)
	r.host.StartDocker(b)
	return r
}

// mirror has the engines pull through sidemirror.
func (r *rig) mirror(b *testing.B) {
	b.Helper()
	stdout, stderr, code, err := r.host.Run(b.Context(), "/srv/"+filepath.Base(harness.Binary(b)), "apply")
	if err != nil || code != 0 {
		b.Fatalf("sidemirror apply: exit code %d, %v\n%s%s", code, err, stdout, stderr)
	}
	b.Logf("apply:\n%s", stdout)
	r.host.StartContainerd(b) // it reads config_path only when it starts
}

func (r *rig) containerd() puller {
	return puller{
		"containerd",
		func(tb testing.TB, repository, digest string) error {
			return r.host.PullCRI(tb.Context(), name+"/"+repository+":v1", digest)
		},
		func(tb testing.TB, repository string) error {
			return r.host.ForgetCRI(tb.Context(), name+"/"+repository+":v1")
		},
	}
}

func (r *rig) docker() puller {
	return puller{
		"docker",
		func(tb testing.TB, repository, digest string) error {
			return r.host.PullDocker(tb.Context(), name+"/"+repository, "v1", digest)
		},
		func(tb testing.TB, repository string) error {
			return r.host.ForgetDocker(tb.Context(), name+"/"+repository, "v1")
		},
	}
}

// pulls are several pulls of one kind.
type pulls struct {
	seconds, mebibytes, requests []float64
}

// report reports the median of the seconds and the most of the others as one benchmark.
func (p pulls) report(b *testing.B, names ...string) {
	b.Helper()
	b.Run(strings.Join(names, "-"), func(b *testing.B) {
		slices.Sort(p.seconds)
		b.ReportMetric(p.seconds[len(p.seconds)/2], "s")
		b.ReportMetric(slices.Max(p.mebibytes), "MiB")
		b.ReportMetric(slices.Max(p.requests), "requests")
		b.ReportMetric(0, "ns/op")
	})
}

// measure pulls new images by an engine, each of them twice if sidemirror stores what it serves.
func (r *rig) measure(b *testing.B, e puller, s shape, way string, stored bool) {
	b.Helper()
	var cold, warm pulls
	for range rounds {
		r.images++
		repository := fmt.Sprintf("alice/image-%d", r.images)
		image := r.registry.Push(b, repository, "v1", s.Shape)
		all := []*pulls{&cold}
		if stored {
			all = append(all, &warm)
		}
		for _, p := range all {
			r.once(b, p, repository, stored, func() error { return e.pull(b, repository, image.Digest) })
			if err := e.forget(b, repository); err != nil {
				b.Fatal(err)
			}
		}
	}
	cold.report(b, e.name, s.name, way)
	if stored {
		warm.report(b, e.name, s.name, "warm")
	}
}

// once measures one pull. It fails the benchmark if that went another way than it should.
func (r *rig) once(b *testing.B, p *pulls, repository string, through bool, pull func() error) {
	b.Helper()
	r.settle(b)
	sent := r.link.Sent()
	all, ours := r.registry.Requests("/v2/" + repository + "/")
	start := time.Now()
	if err := pull(); err != nil {
		b.Fatalf("pulling %s: %v", repository, err)
	}
	took := time.Since(start)
	r.settle(b)
	allNow, oursNow := r.registry.Requests("/v2/" + repository + "/")
	all, ours = allNow-all, oursNow-ours
	if through && all != ours || !through && ours > 0 {
		b.Fatalf("%d of the %d requests about %s came from sidemirror", ours, all, repository)
	}
	p.seconds = append(p.seconds, took.Seconds())
	p.mebibytes = append(p.mebibytes, float64(r.link.Sent()-sent)/(1<<20))
	p.requests = append(p.requests, float64(all))
}

// settle waits until nothing comes over the link, so that what is fetched after a pull counts too,
// and not for the next one.
func (r *rig) settle(b *testing.B) {
	b.Helper()
	const quiet = 500 * time.Millisecond
	last, since := r.link.Sent(), time.Now()
	for time.Since(since) < quiet {
		time.Sleep(10 * time.Millisecond)
		if now := r.link.Sent(); now != last {
			last, since = now, time.Now()
		}
	}
}
