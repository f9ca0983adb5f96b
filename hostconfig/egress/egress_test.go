package egress

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

var all = []string{engine.Docker, engine.Containerd, engine.CRIO, engine.BuildKit}

// host makes a host's tree from files by their paths.
func host(t *testing.T, files map[string]string) *engine.Host {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h, err := hostfs.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return &engine.Host{Tree: h}
}

// manager is a service manager that has units in force.
type manager map[string]unit

type unit struct {
	set, files, unset []string
	active, outdated  bool
}

func (m manager) Environment(_ context.Context, name string) (set, files, unset []string, err error) {
	return m[name].set, m[name].files, m[name].unset, nil
}
func (m manager) Active(_ context.Context, name string) (bool, error) { return m[name].active, nil }
func (m manager) Outdated(_ context.Context, name string) (bool, error) {
	return m[name].outdated, nil
}

// away is a service manager that cannot be asked.
type away struct{ manager }

func (away) Environment(context.Context, string) (set, files, unset []string, err error) {
	return nil, nil, nil, errors.New("no bus")
}

// text returns a proxy as one line: http, https, what is not, and where from.
func text(p *Proxy) string {
	if p == nil {
		return ""
	}
	return strings.Join([]string{p.HTTP.Reveal(), p.HTTPS.Reveal(), p.NoProxy, p.From}, " ")
}

func TestProxyOfAnEngine(t *testing.T) {
	const docker, containerd, k3s, dropIn, daemonJSON = "docker.service", "containerd.service", "k3s.service", "/etc/systemd/system/docker.service.d/proxy.conf", "/etc/docker/daemon.json"
	const lib = "/usr/lib/systemd/system/docker.service"
	for name, test := range map[string]struct {
		files map[string]string
		units Units
		want  string
	}{
		"none":                      {nil, manager{docker: {set: []string{"LANG=C", "NO_PROXY=x"}, active: true}}, ""},
		"both":                      {nil, manager{docker: {set: []string{"HTTP_PROXY=a:1", "HTTPS_PROXY=http://b:2", "NO_PROXY=10.0.0.0/8,.corp"}}}, "a:1 http://b:2 10.0.0.0/8,.corp docker.service"},
		"small letters":             {nil, manager{docker: {set: []string{"http_proxy=a:1", "https_proxy=b:2", "no_proxy=c"}}}, "a:1 b:2 c docker.service"},
		"capitals win":              {nil, manager{docker: {set: []string{"https_proxy=b:2", "HTTPS_PROXY=a:1"}}}, " a:1  docker.service"},
		"empty capitals do not":     {nil, manager{docker: {set: []string{"https_proxy=b:2", "HTTPS_PROXY="}}}, " b:2  docker.service"},
		"all_proxy is not read":     {nil, manager{docker: {set: []string{"ALL_PROXY=socks5://a:1"}}}, ""},
		"the last assignment":       {nil, manager{docker: {set: []string{"HTTPS_PROXY=a:1", "HTTPS_PROXY=b:2"}}}, " b:2  docker.service"},
		"a file of the unit":        {map[string]string{"/etc/default/docker": "HTTPS_PROXY=\"http://u:p%40@b:2\"\n"}, manager{docker: {set: []string{"HTTPS_PROXY=a:1"}, files: []string{"-/etc/default/docker"}}}, " http://u:p%40@b:2  /etc/default/docker"},
		"unset":                     {nil, manager{docker: {set: []string{"HTTPS_PROXY=a:1"}, unset: []string{"HTTPS_PROXY"}}}, ""},
		"what is in force":          {map[string]string{lib: "[Service]\nExecStart=dockerd\n", dropIn: "[Service]\nEnvironment=HTTPS_PROXY=new:1\n"}, manager{docker: {set: []string{"HTTPS_PROXY=old:1"}, outdated: true}}, " old:1  docker.service"},
		"files of the unit":         {map[string]string{lib: "[Service]\nExecStart=dockerd\n", dropIn: "[Service]\nEnvironment=HTTPS_PROXY=new:1\n"}, nil, " new:1  docker.service"},
		"no answer of systemd":      {map[string]string{lib: "[Service]\nExecStart=dockerd\n", dropIn: "[Service]\nEnvironment=HTTPS_PROXY=new:1\n"}, away{}, " new:1  docker.service"},
		"daemon.json":               {map[string]string{daemonJSON: `{"proxies": {"https-proxy": "http://b:2", "no-proxy": "c"}}`}, manager{docker: {set: []string{"HTTPS_PROXY=a:1", "HTTP_PROXY=a:1"}}}, "a:1 http://b:2 c docker.service and /etc/docker/daemon.json"},
		"daemon.json alone":         {map[string]string{daemonJSON: `{"proxies": {"https-proxy": "http://b:2"}}`}, nil, " http://b:2  /etc/docker/daemon.json"},
		"daemon.json is faulty":     {map[string]string{daemonJSON: `{"proxies": `}, manager{docker: {set: []string{"HTTPS_PROXY=a:1"}}}, " a:1  docker.service"},
		"another configuration":     {map[string]string{lib: "[Service]\nExecStart=dockerd --config-file /etc/d.json", "/etc/d.json": `{"proxies": {"https-proxy": "b:2"}}`}, nil, " b:2  /etc/d.json"},
		"flags of dockerd":          {map[string]string{lib: "[Service]\nExecStart=dockerd --https-proxy=http://b:2 --no-proxy c"}, nil, " http://b:2 c docker.service"},
		"init script":               {map[string]string{"/etc/init.d/docker": "", "/etc/default/docker": "export http_proxy=\"http://a:1\"\n"}, nil, "http://a:1   /etc/default/docker"},
		"variables for containerd":  {nil, manager{k3s: {set: []string{"HTTPS_PROXY=a:1", "CONTAINERD_HTTPS_PROXY=b:2", "CONTAINERD_NO_PROXY=c"}}}, " b:2 c k3s.service"},
		"not those of containerd":   {nil, manager{containerd: {set: []string{"CONTAINERD_HTTPS_PROXY=b:2"}}}, ""},
		"microk8s":                  {map[string]string{"/var/snap/microk8s/current/args/containerd-env": "# HTTPS_PROXY=no\nexport HTTPS_PROXY=a:1\nNO_PROXY=b\n"}, manager{}, " a:1 b /var/snap/microk8s/current/args/containerd-env"},
		"docker before containerd":  {nil, manager{docker: {set: []string{"HTTPS_PROXY=a:1"}, active: true}, containerd: {set: []string{"HTTPS_PROXY=b:2"}, active: true}}, " a:1  docker.service"},
		"a running engine is first": {nil, manager{docker: {set: []string{"HTTPS_PROXY=a:1"}}, containerd: {set: []string{"HTTPS_PROXY=b:2"}, active: true}}, " b:2  containerd.service"},
		"the one that has one":      {nil, manager{docker: {set: []string{"HTTPS_PROXY=a:1"}}, containerd: {active: true}}, " a:1  docker.service"},
		"too long":                  {nil, manager{docker: {set: []string{"HTTPS_PROXY=a" + strings.Repeat("a", maxValue)}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := text(Find(t.Context(), host(t, test.files), all, test.units).Proxy); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestAnEngineThatIsNotConfiguredDoesNotCount(t *testing.T) {
	m := manager{"docker.service": {set: []string{"HTTPS_PROXY=a:1"}, active: true}, "crio.service": {set: []string{"HTTPS_PROXY=b:2"}}}
	if got := Find(t.Context(), host(t, nil), []string{engine.CRIO}, m); got.Proxy == nil || got.Proxy.From != "crio.service" {
		t.Errorf("got %v", got.Proxy)
	}
	if got := Find(t.Context(), host(t, nil), nil, m); got.Proxy != nil {
		t.Errorf("without engines: %v", got.Proxy)
	}
}

func TestEnginesThatDisagreeAreNoted(t *testing.T) {
	a := unit{set: []string{"HTTPS_PROXY=http://u:canary@a:1"}, active: true}
	b := unit{set: []string{"HTTPS_PROXY=http://u:canary@b:2"}, active: true}
	for name, test := range map[string]struct {
		units manager
		notes int
	}{
		"the same":      {manager{"docker.service": a, "containerd.service": a}, 0},
		"different":     {manager{"docker.service": a, "containerd.service": b, "crio.service": a}, 1},
		"one has none":  {manager{"docker.service": a, "containerd.service": {active: true}}, 0},
		"one is off":    {manager{"docker.service": a, "containerd.service": {set: b.set}}, 0},
		"all are alone": {manager{"containerd.service": b}, 0},
	} {
		got := Find(t.Context(), host(t, nil), all, test.units)
		if len(got.Notes) != test.notes {
			t.Errorf("%s: %v", name, got.Notes)
		}
		if strings.Contains(fmt.Sprintf("%+v %v", got, got.Notes), "canary") {
			t.Errorf("%s: prints a password", name)
		}
	}
}

func TestAnEnvironmentFileOfAnotherUserIsNotBelieved(t *testing.T) {
	h := host(t, map[string]string{"/etc/default/docker": "HTTPS_PROXY=a:1\n"})
	if err := os.Chmod(filepath.Join(h.Tree.Dir(), "/etc/default/docker"), 0o666); err != nil {
		t.Fatal(err)
	}
	got := Find(t.Context(), h, all, manager{"docker.service": {files: []string{"-/etc/default/docker"}}})
	if got.Proxy != nil || len(got.Notes) != 1 || !strings.Contains(got.Notes[0].Error(), "/etc/default/docker") {
		t.Errorf("got %v, %v", got.Proxy, got.Notes)
	}
}

func TestUnitsThatSystemdHasNotReadAgainAreReported(t *testing.T) {
	if got := Find(t.Context(), host(t, nil), all, manager{"docker.service": {outdated: true}}); !got.Outdated {
		t.Error("an outdated unit is not reported")
	}
	if got := Find(t.Context(), host(t, nil), all, manager{"docker.service": {}}); got.Outdated {
		t.Error("no unit is outdated")
	}
}

func TestDropInsAreWatchedAlsoWhenSystemdIsAsked(t *testing.T) {
	h := host(t, nil)
	Find(t.Context(), h, all, manager{"docker.service": {files: []string{"/etc/proxy.env"}}})
	for _, want := range []string{"/etc/systemd/system/docker.service", "/etc/systemd/system/docker.service.d", "/etc/proxy.env", "/etc/docker/daemon.json"} {
		if !slices.Contains(h.Tree.Seen(), want) && !slices.Contains(h.Tree.Seen(), want+"/") {
			t.Errorf("%s is not watched", want)
		}
	}
}
