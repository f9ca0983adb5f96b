package docker

import (
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/live"
	"github.com/sidemirror/sidemirror/hostconfig/process"
)

func TestOnlyTheHostsOwnDockerdIsAccepted(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want bool
	}{
		"own":                    {[]string{"/usr/bin/dockerd", "-H", "fd://"}, true},
		"with the usual pidfile": {[]string{"dockerd", "--pidfile=/var/run/docker.pid"}, true},
		"with another pidfile":   {[]string{"dockerd", "--pidfile", "/tmp/x.pid"}, false},
		// To ask one of these for its configuration would be to start Docker by its socket.
		"--version":  {[]string{"dockerd", "--version"}, false},
		"-v":         {[]string{"dockerd", "-v"}, false},
		"--validate": {[]string{"dockerd", "--validate", "--config-file", "/x.json"}, false},
		"--help":     {[]string{"dockerd", "--help"}, false},
	} {
		if got := Query.Accept(process.Process{Args: test.args}); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestInfoOfDockerd(t *testing.T) {
	for text, want := range map[string]live.Info{
		`{"ServerVersion":"28.5.2","Driver":"overlayfs","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]],"RegistryConfig":{"Mirrors":["http://a/"]}}`: {Version: "28.5.2", Mirrors: []string{"http://a/"}, Store: "containerd"},
		`{"ServerVersion":"20.10.24","Driver":"overlay2","DriverStatus":[["Backing Filesystem","extfs"]]}`:                                                           {Version: "20.10.24", Store: "overlay2"},
	} {
		got, err := readInfo(strings.NewReader(text))
		if err != nil || got.Version != want.Version || got.Store != want.Store || !slices.Equal(got.Mirrors, want.Mirrors) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if _, err := readInfo(strings.NewReader("<html>")); err == nil {
		t.Error("no error")
	}
}
