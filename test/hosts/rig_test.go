// Package hosts_test runs the real sidemirror on hosts with real engines of every
// generation: apply, pull, revert, as a person would, and counts who asked whom.
package hosts_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
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

func TestMain(m *testing.M) {
	if err := network.Isolate(func() error { return errors.Join(engine.GetAll(), harness.Build()) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	harness.Main(m)
}

const (
	hubName   = "docker.io"
	otherName = "reg.test"

	// listen is sidemirror's default address. The tests have a network of their own.
	listen = "127.0.0.1:305"
)

// rig is one host with engines, a sidemirror, and a registry that is Docker Hub and
// another one to all of them.
type rig struct {
	host       *engine.Host
	sidemirror *harness.Sidemirror
	upstream   *registry.Registry
	images     int
}

// rigOptions say what is special about a host.
type rigOptions struct {
	generation engine.Generation

	// files are put over what the engines' packages install.
	files map[string]string

	// distrust says that the host does not know the authority of the registry's
	// certificate; we do.
	distrust bool
}

// newRig makes a host on which containerd and dockerd run, untouched by us.
func newRig(t *testing.T, o rigOptions) *rig {
	t.Helper()
	engine.NeedRoot(t)
	address := network.Address4(t, 443) // dockerd always asks for Docker Hub at this port
	ip, _, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{upstream: registry.Start(t, registry.Options{
		Names: []string{"registry-1.docker.io", otherName, ip}, Address: address,
	})}
	var served []harness.Registry
	for _, name := range []string{hubName, otherName} {
		served = append(served, harness.Registry{Name: name, Upstreams: []string{r.upstream.URL.String()}, CA: r.upstream.CA})
	}
	r.sidemirror = harness.Start(t, harness.Options{Registries: served, Listen: []string{listen}})
	r.host = r.newHost(t, ip, o)
	r.host.StartContainerd(t)
	r.host.StartDocker(t)
	return r
}

// newHost makes a host for which the registry is at ip.
func (r *rig) newHost(t *testing.T, ip string, o rigOptions) *engine.Host {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(r.sidemirror.Dir(), "config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{
		"/etc/hosts":                  fmt.Sprintf("127.0.0.1 localhost\n%s registry-1.docker.io %s\n", ip, otherName),
		"/etc/sidemirror/config.toml": string(config),
	}
	maps.Copy(all, o.files)
	ca := r.upstream.CA
	if o.distrust {
		ca = ""
	}
	return engine.StartHost(t, engine.HostOptions{Generation: o.generation, Files: all, CA: ca, Program: harness.Binary(t)})
}

// do runs a command of sidemirror's on the host and fails the test where its exit
// code is not want.
func (r *rig) do(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	program := "/srv/" + filepath.Base(harness.Binary(t))
	stdout, stderr, code, err := r.host.Run(t.Context(), append([]string{program}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	if code != want {
		t.Fatalf("sidemirror %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, stdout, stderr)
	}
	return stdout, stderr
}

// status is what `sidemirror status --json` prints, as far as it is looked at here.
type status struct {
	OK                        bool
	Engines                   []state
	Pending, Signals, Refused []string
}

// state is what it prints of one engine.
type state struct {
	Engine, Home, Version, Store, Config, Hosts, Mirror string
	Running                                             bool
	Files, Notes                                        []string
}

func (r *rig) status(t *testing.T) status {
	t.Helper()
	out, _ := r.do(t, 0, "status", "--json")
	var s status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// engine is what the status says of one engine.
func (s status) engine(t *testing.T, name string) state {
	t.Helper()
	i := slices.IndexFunc(s.Engines, func(e state) bool { return e.Engine == name && e.Home == "" })
	if i < 0 || !s.Engines[i].Running {
		t.Fatalf("the status knows no %s that runs: %+v", name, s.Engines)
	}
	return s.Engines[i]
}

// logLimit is how long a line of a log may take to be there.
const logLimit = 2 * time.Second

// by is the way that a pull took.
type by string

const (
	direct    by = "straight to the registry"
	throughUs by = "through sidemirror"
)

// pulled pulls a new image by pull, which is given its repository and digest, and
// reports by what the registry and we have counted which way that went.
func (r *rig) pulled(t *testing.T, pull func(repository, digest string) error) by {
	t.Helper()
	r.images++
	repository := fmt.Sprintf("alice/image-%d", r.images)
	image := r.upstream.Push(t, repository, "v1", registry.Shape{Index: r.images%2 == 0, Size: 1 << 12})
	before, _ := r.upstream.Requests("/v2/" + repository + "/")
	if err := pull(repository, image.Digest); err != nil {
		t.Errorf("pulling %s: %v", repository, err)
		return ""
	}
	// The last line of a log may come after the answer that it is about.
	var said string
	for deadline := time.Now().Add(logLimit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		all, ours := r.upstream.Requests("/v2/" + repository + "/")
		all -= before // the push
		lines := r.asked(repository)
		switch {
		case all > 0 && ours == 0 && lines == 0:
			return direct
		case ours > 0 && all == ours && lines >= len(image.Platform):
			return throughUs
		}
		said = fmt.Sprintf("the registry was asked %d times, %d of them by sidemirror, which was asked %d times", all, ours, lines)
	}
	t.Errorf("%s has %d parts; %s", repository, len(image.Platform), said)
	return ""
}

// asked is how many requests about a repository we have had.
func (r *rig) asked(repository string) int {
	lines := 0
	for line := range strings.Lines(r.sidemirror.Log()) {
		if strings.Contains(line, "msg=request ") && strings.Contains(line, " repository="+repository+" ") {
			lines++
		}
	}
	return lines
}

// ways are the pulls of one look at a host.
type ways struct {
	criHub, criOther, dockerHub, dockerOther by
}

// look pulls by every way that there is.
func (r *rig) look(t *testing.T) ways {
	t.Helper()
	byCRI := func(name string) by {
		return r.pulled(t, func(repository, digest string) error {
			return r.host.PullCRI(t.Context(), name+"/"+repository+":v1", digest)
		})
	}
	byDocker := func(prefix string) by {
		return r.pulled(t, func(repository, digest string) error {
			return r.host.PullDocker(t.Context(), prefix+repository, "v1", digest)
		})
	}
	return ways{byCRI(hubName), byCRI(otherName), byDocker(""), byDocker(otherName + "/")}
}

// expect looks, and compares with want.
func (r *rig) expect(t *testing.T, when string, want ways) {
	t.Helper()
	if got := r.look(t); got != want {
		t.Errorf("%s, pulls went\n got %+v\nwant %+v", when, got, want)
	}
}
