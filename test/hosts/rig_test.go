// Package hosts_test runs the real sidemirror on hosts with real engines of every generation:
// it applies, pulls and reverts as a person would, and counts which way each pull went.
package hosts_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
	sixName   = "six.test"
	anyName   = "any.test"

	// listen is sidemirror's default address. The tests have a network of their own.
	listen = "127.0.0.1:305"
)

// rig is one host with engines, a sidemirror, and a registry that is Docker Hub and
// another one to all of them.
type rig struct {
	host       *engine.Host
	sidemirror *harness.Sidemirror
	upstream   *registry.Registry
	six        *registry.Registry // the registry six.test, if there is one
	any        *registry.Registry // the registry any.test, if there is one
	images     int
	served     harness.Options // as sidemirror was started
}

// rigOptions describe a host.
type rigOptions struct {
	generation engine.Generation

	// files are put over what the engines' packages install.
	files map[string]string

	// distrust makes a host that does not know the authorities of the registries'
	// certificates. sidemirror does.
	distrust bool

	// six adds the registry six.test, which has an IPv6 address only.
	six bool

	// any adds the registry any.test, which the host and sidemirror trust and no table names.
	any bool

	// wildcard leaves registry."*" on.
	wildcard bool

	// mirrors are registries that the host can look up and trusts, but sidemirror does
	// not serve, by their names.
	mirrors map[string]*registry.Registry

	// unknown are registries that the host and sidemirror can look up, and that neither trusts.
	unknown map[string]*registry.Registry

	// private makes Docker Hub and reg.test a private registry, for which only sidemirror
	// has a login.
	private bool

	// tools makes a host on which neither containerd nor dockerd runs.
	tools bool
	// own makes the registry private like private does, and sidemirror has no login for it.
	own bool

	// listen is where sidemirror listens, if not at its default address.
	listen []string
}

// newRig makes a host on which containerd and dockerd run. sidemirror has changed nothing
// on it.
func newRig(t *testing.T, o rigOptions) *rig {
	t.Helper()
	engine.NeedRoot(t)
	address := network.Address4(t, 443) // dockerd always asks for Docker Hub at this port
	r := &rig{upstream: registry.Start(t, registry.Options{
		Names: []string{"registry-1.docker.io", otherName, ip(address)}, Address: address, Private: o.private || o.own, RefuseForms: o.own,
	})}
	served := harness.Options{Listen: o.listen}
	if o.listen == nil {
		served.Listen = []string{listen}
	}
	hosts := fmt.Sprintf("127.0.0.1 localhost\n%s registry-1.docker.io %s\n", ip(address), otherName)
	for _, name := range []string{hubName, otherName} {
		one := harness.Registry{Name: name, Upstreams: []string{r.upstream.URL.String()}, CA: r.upstream.CA}
		if o.own {
			one.Realms = []string{r.upstream.Realm}
		}
		if o.private {
			one.Realms = []string{r.upstream.Realm}
			served.Logins = map[string]string{hubName: r.upstream.User + ":" + r.upstream.Password, otherName: r.upstream.User + ":" + r.upstream.Password}
		}
		served.Registries = append(served.Registries, one)
	}
	trusted := []*registry.Registry{r.upstream}
	if o.six {
		address := network.Address6(t, 443)
		r.six = registry.Start(t, registry.Options{Names: []string{sixName, ip(address)}, Address: address})
		served.Registries = append(served.Registries, harness.Registry{Name: sixName, Upstreams: []string{r.six.URL.String()}, CA: r.six.CA})
		hosts += ip(address) + " " + sixName + "\n"
		trusted = append(trusted, r.six)
	}
	for name, other := range o.unknown {
		hosts += other.URL.Hostname() + " " + name + "\n"
	}
	if o.any {
		address := network.Address4(t, 443)
		r.any = registry.Start(t, registry.Options{Names: []string{anyName, ip(address)}, Address: address})
		hosts += ip(address) + " " + anyName + "\n"
		trusted = append(trusted, r.any)
		served.Env, served.Hosts = []string{"SSL_CERT_FILE=" + r.any.CA}, hosts
	}
	served.Unnamed = o.wildcard
	for name, mirror := range o.mirrors {
		hosts += mirror.URL.Hostname() + " " + name + "\n"
		trusted = append(trusted, mirror)
	}
	if o.distrust {
		trusted = nil
	}
	r.served = served
	r.sidemirror = harness.Start(t, served)
	r.host = r.newHost(t, hosts, authorities(t, trusted), o)
	if o.tools {
		return r
	}
	r.host.StartContainerd(t)
	r.host.StartDocker(t)
	return r
}

// ip is the address of a host and port.
func ip(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	return host
}

// authorities are those of the https registries among some.
func authorities(t *testing.T, registries []*registry.Registry) string {
	t.Helper()
	var all strings.Builder
	for _, r := range registries {
		if r.CA == "" {
			continue
		}
		pem, err := os.ReadFile(r.CA)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(pem)
	}
	return all.String()
}

// newHost makes a host with that /etc/hosts, which trusts those authorities.
func (r *rig) newHost(t *testing.T, hosts, authorities string, o rigOptions) *engine.Host {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(r.sidemirror.Dir(), "config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{
		"/etc/hosts":                         hosts,
		"/etc/ssl/certs/ca-certificates.crt": authorities,
		"/etc/sidemirror/config.toml":        string(config),
		// These hosts have a client of CRI.
		"/etc/crictl.yaml": "runtime-endpoint: unix:///run/containerd/containerd.sock\n",
	}
	maps.Copy(all, o.files)
	return engine.StartHost(t, engine.HostOptions{Generation: o.generation, Files: all, Program: harness.Binary(t)})
}

// put writes files into the host's tree until the end of the test, which puts back what
// was there before.
func (r *rig) put(t *testing.T, files map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file := filepath.Join(r.host.Root, name)
		was, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		missing := file // the uppermost folder that is missing, or the file
		for folder := filepath.Dir(file); !exists(folder); folder = filepath.Dir(folder) {
			missing = folder
		}
		t.Cleanup(func() {
			if err == nil {
				err = os.WriteFile(file, was, 0o644)
			} else {
				err = os.RemoveAll(missing)
			}
			if err != nil {
				t.Error(err)
			}
		})
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(files[name]), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// read returns a file of the host's, empty if there is none.
func (r *rig) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.host.Root, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

// run runs a command of sidemirror's on the host.
func (r *rig) run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	program := "/srv/" + filepath.Base(harness.Binary(t))
	stdout, stderr, code, err := r.host.Run(t.Context(), append([]string{program}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return stdout, stderr, code
}

// do runs a command of sidemirror's on the host and fails the test if its exit code is
// not want.
func (r *rig) do(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, code := r.run(t, args...)
	if code != want {
		t.Fatalf("sidemirror %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, stdout, stderr)
	}
	return stdout, stderr
}
