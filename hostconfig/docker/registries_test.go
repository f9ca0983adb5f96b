package docker

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/certsd"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
)

// tree makes a host's tree from files by their paths.
func tree(t *testing.T, files map[string]string) *engine.Host {
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

// The forms are those of moby, daemon/pkg/registry/config.go.
func TestRegistriesThatDockerdTreatsAsInsecure(t *testing.T) {
	names := map[string][]netip.Addr{
		"reg.example":    {netip.MustParseAddr("10.1.2.3")},
		"six.example":    {netip.MustParseAddr("2001:db8::7")},
		"mapped.example": {netip.MustParseAddr("::ffff:10.1.2.3")},
		"two.example":    {netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("10.9.9.9")},
		hubHost:          {netip.MustParseAddr("198.51.100.5")},
	}
	lookup := func(_ context.Context, name string) ([]netip.Addr, error) {
		if list, ok := names[name]; ok {
			return list, nil
		}
		return nil, errors.New("no such host")
	}
	for _, test := range []struct {
		list     []string
		registry string
		want     verdict
	}{
		{nil, "reg.example", secure},
		{nil, "localhost:5000", insecure},
		{nil, "127.9.9.9:5000", insecure},
		{nil, "[::1]:5000", insecure},
		{nil, "file.example:5000", insecure}, // at loopback in /etc/hosts
		{[]string{"reg.example"}, "reg.example", insecure},
		{[]string{"reg.example"}, "reg.example:5000", secure},
		{[]string{"reg.example:5000"}, "reg.example:5000", insecure},
		{[]string{"reg.example:5000"}, "reg.example", secure},
		{[]string{"REG.example"}, "reg.example", secure},
		{[]string{"http://reg.example"}, "reg.example", insecure},
		{[]string{"HTTPS://reg.example:5000"}, "reg.example:5000", insecure},
		{[]string{"docker.io"}, "docker.io", secure},
		{[]string{"index.docker.io"}, "docker.io", secure},
		{[]string{hubHost}, "docker.io", insecure},
		{[]string{"198.51.100.0/24"}, "docker.io", insecure},
		{[]string{"10.0.0.0/8"}, "docker.io", secure},
		{[]string{"10.0.0.0/8"}, "reg.example:5000", insecure},
		{[]string{"10.200.0.1/8"}, "reg.example", insecure},
		{[]string{"10.0.0.0/8"}, "mapped.example", insecure},
		{[]string{"10.0.0.0/8"}, "two.example", insecure},
		{[]string{"10.0.0.0/8"}, "10.7.7.7:5000", insecure},
		{[]string{"10.0.0.0/8"}, "11.7.7.7:5000", secure},
		{[]string{"2001:db8::/32"}, "six.example", insecure},
		{[]string{"2001:db8::/32"}, "reg.example", secure},
		{[]string{"2001:db8::/32"}, "[2001:db8::1]:5000", insecure},
		{[]string{"10.0.0.0/8"}, "gone.example", unknown},
		{[]string{"gone.example", "10.0.0.0/8"}, "gone.example", insecure},
	} {
		h := tree(t, map[string]string{"/etc/hosts": "127.0.0.1 localhost\n127.0.0.2 File.Example # the registry\nnonsense\n"})
		trust := newTrust(h, test.list)
		trust.lookup = lookup
		if got := trust.of(t.Context(), test.registry); got != test.want {
			t.Errorf("%q in %q: %v, want %v", test.registry, test.list, got, test.want)
		}
	}
}

func TestWithoutANetworkNamesAreUnknownOnlyIfThatMatters(t *testing.T) {
	h := tree(t, map[string]string{"/etc/hosts": "198.51.100.5 " + hubHost + "\n"})
	for list, want := range map[string]map[string]verdict{
		"reg.example": {"docker.io": secure, "ghcr.io": secure, "reg.example": insecure},
		"10.0.0.0/8":  {"docker.io": secure, "ghcr.io": unknown, "10.1.1.1": insecure},
	} {
		for registry, want := range want {
			if got := newTrust(h, []string{list}).of(t.Context(), registry); got != want {
				t.Errorf("%s with %s: %v", registry, list, got)
			}
		}
	}
}

func TestCarriedMirrorsHaveTheTLSSettingsThatDockerdGivesThem(t *testing.T) {
	files := map[string]string{
		"/etc/docker/certs.d/docker.io/ca.crt":                 "PEM",
		"/etc/docker/certs.d/m.example:5000/own.crt":           "PEM",
		"/etc/docker/certs.d/m.example:5000/client.cert":       "PEM",
		"/etc/docker/certs.d/m.example:5000/client.key":        "PEM",
		"/etc/docker/certs.d/bad.example/ca.crt/not-a-file":    "",
		"/etc/docker/certs.d/other.example/unrelated.crt.save": "",
	}
	const folder = "/etc/docker/certs.d/m.example:5000/"
	for name, test := range map[string]struct {
		mirrors, insecure []string
		want              []splice.Mirror
	}{
		"own certificates": {[]string{"https://m.example:5000/"}, nil,
			[]splice.Mirror{{URL: "https://m.example:5000", CA: []string{"ca.crt", folder + "own.crt"}, Clients: [][]string{{folder + "client.cert", folder + "client.key"}}}}},
		"Docker Hub's certificates": {[]string{"https://other.example"}, nil, []splice.Mirror{{URL: "https://other.example", CA: []string{"ca.crt"}}}},
		"insecure":                  {[]string{"https://x.example:5000"}, []string{"x.example:5000"}, []splice.Mirror{{URL: "http://x.example:5000", CA: []string{"ca.crt"}, SkipVerify: true}}},
		"insecure at port 80":       {[]string{"https://x.example:80"}, []string{"x.example:80"}, []splice.Mirror{{URL: "https://x.example:80", CA: []string{"ca.crt"}, SkipVerify: true}}},
		"plain HTTP":                {[]string{"http://x.example:5000"}, []string{"x.example:5000"}, []splice.Mirror{{URL: "http://x.example:5000"}}},
		"path":                      {[]string{"https://x.example/mirror/"}, nil, []splice.Mirror{{URL: "https://x.example/mirror", CA: []string{"ca.crt"}}}},
		"sidemirror, in all spellings": {[]string{"http://127.0.0.1:305", "http://127.0.0.1:305/", "http://localhost:305", "HTTP://127.0.0.1:305/"}, nil,
			nil},
		"twice": {[]string{"http://x.example", "http://x.example/"}, nil, []splice.Mirror{{URL: "http://x.example"}}},
	} {
		t.Run(name, func(t *testing.T) {
			d := &docker{Host: tree(t, files), settings: settings{Mirrors: test.mirrors}}
			got, err := d.carried(t.Context(), newTrust(d.Host, test.insecure), certsd.Folder{Host: d.Host, Path: hostsFolder}, "http://127.0.0.1:305")
			if err != nil || !reflect.DeepEqual(normal(got), normal(test.want)) {
				t.Errorf("got %+v, want %+v, %v", got, test.want, err)
			}
		})
	}
	d := &docker{Host: tree(t, files), settings: settings{Mirrors: []string{"https://bad.example"}}}
	if _, err := d.carried(t.Context(), newTrust(d.Host, nil), certsd.Folder{Host: d.Host, Path: hostsFolder}, ""); err != nil {
		t.Errorf("a folder by the name of a certificate: %v", err)
	}
}

// normal makes empty lists nil.
func normal(list []splice.Mirror) []splice.Mirror {
	for i := range list {
		list[i].CA = slices.Clip(append([]string(nil), list[i].CA...))
		list[i].Clients = append([][]string(nil), list[i].Clients...)
	}
	return append([]splice.Mirror(nil), list...)
}

func TestWhichDockersUseAGraphDriver(t *testing.T) {
	for name, test := range map[string]struct {
		version, daemon string
		args            []string
		folder          string // with something in it
		want            bool
	}{
		"28":                        {version: "28.5.2", want: true},
		"28 with the feature":       {version: "28.5.2", daemon: `{"features": {"containerd-snapshotter": true}}`},
		"29":                        {version: "29.7.2"},
		"29 without the feature":    {version: "29.7.2", daemon: `{"features": {"containerd-snapshotter": false}}`, want: true},
		"29 with a driver":          {version: "29.7.2", daemon: `{"storage-driver": "overlay2"}`, want: true},
		"29 with a driver by flag":  {version: "29.7.2", args: []string{"dockerd", "-s", "vfs"}, want: true},
		"29 with a snapshotter":     {version: "29.7.2", daemon: `{"storage-driver": "overlayfs"}`},
		"29 with images":            {version: "29.7.2", folder: "/var/lib/docker/overlay2/x", want: true},
		"29 with images of vfs":     {version: "29.7.2", folder: "/var/lib/docker/vfs/x"},
		"29 with images elsewhere":  {version: "29.7.2", daemon: `{"data-root": "/srv/d"}`, folder: "/srv/d/btrfs/x", want: true},
		"29 with an empty folder":   {version: "29.7.2", folder: "/var/lib/docker/x/overlay2"},
		"feature before the driver": {version: "29.7.2", daemon: `{"storage-driver": "overlay2", "features": {"containerd-snapshotter": true}}`},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"/etc/docker/x": ""}
			if test.daemon != "" {
				files[daemonJSON] = test.daemon
			}
			if test.folder != "" {
				files[test.folder] = ""
			}
			h := tree(t, files)
			h.Versions = map[string]string{engine.Docker: test.version}
			h.Named = []string{engine.Docker}
			d := &docker{Host: h, json: daemonJSON, args: test.args}
			d.findVersion(t.Context(), &engine.State{})
			if err := d.readSettings(); err != nil {
				t.Fatal(err)
			}
			if got := d.usesGraphDriver(); got != test.want {
				t.Errorf("%v", got)
			}
		})
	}
}
