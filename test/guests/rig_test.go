// Package guests tests what containers and virtual machines of a host get from sidemirror: over real
// bridges, from network namespaces, by real engines.
package guests

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/network"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestMain(m *testing.M) {
	if err := network.Isolate(func() error { return errors.Join(engine.GetAll(), harness.Build()) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	harness.Main(m)
}

const (
	gateway = "172.30.7.1" // this host's address on the bridge
	prefix  = gateway + "/24"
	at      = gateway + ":305"

	public, private = "team/app", "team/secret"
	user, password  = "robot", "canary-password-51c0"
)

var image = quirky.NewImage(false, "guests", 100<<10, 100)

// rig is a host with a bridge, a guest on it, a registry, and sidemirror.
type rig struct {
	t          *testing.T
	bridge     *network.Bridge
	guest      *network.Guest
	registry   *quirky.Server
	sidemirror *harness.Sidemirror
	client     *http.Client // in the guest
}

// newRig serves guests. logins says that sidemirror may use its login for them.
func newRig(t *testing.T, logins bool) *rig {
	t.Helper()
	return newRigWith(t, logins, quirky.Options{Auth: quirky.Auth{
		Scheme: "Bearer", Users: map[string]string{user: password}, Private: []string{private},
	}})
}

// newRigWith is newRig with another registry.
func newRigWith(t *testing.T, logins bool, registry quirky.Options) *rig {
	t.Helper()
	r := &rig{t: t, bridge: network.NewBridge(t, "br-guests", prefix)}
	r.guest = r.bridge.NewGuest("172.30.7.2")
	r.registry = quirky.New(t, registry)
	r.registry.Add(public, "v1", image)
	r.registry.Add(private, "v1", image)
	extra := "\n[guests]\nnetworks = [\"br-*\"]\n"
	if logins {
		extra += fmt.Sprintf("logins = [%q]\n", r.registry.Host())
	}
	r.sidemirror = harness.Start(t, harness.Options{
		Registries: []harness.Registry{
			{Name: r.registry.Host(), Upstreams: []string{r.registry.URL()}},
			{Name: "docker.io", Upstreams: []string{r.registry.URL()}},
		},
		Logins: map[string]string{r.registry.Host(): user + ":" + password},
		Extra:  extra,
	})
	r.client = client(t, r.guest)
	r.await("the guest is served", func() bool { return r.get("/", "").Status == http.StatusOK })
	return r
}

// client returns a client whose connections come from a guest.
func client(t *testing.T, g *network.Guest) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: g.Dial, DisableCompression: true, DisableKeepAlives: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// get asks for a path as the guest does; host, if not empty, is the name in the Host header.
func (r *rig) get(path, host string) harness.Answer {
	header := http.Header{}
	if host != "" {
		header.Set("Host", host)
	}
	return harness.Fetch(r.client, http.MethodGet, "http://"+at+path, header)
}

// of returns the path of something in a repository of the registry, as containerd asks for it.
func (r *rig) of(repository, what string) string {
	return "/v2/" + repository + "/" + what + "?ns=" + r.registry.Host()
}

// await waits until something is so.
func (r *rig) await(what string, so func() bool) {
	r.t.Helper()
	r.sidemirror.Eventually(what, so)
}

// untrusted returns a client of a user of this host who is not trusted.
func untrusted(t *testing.T) *http.Client { return harness.ClientAs(t, harness.Untrusted) }
