package keeper

import (
	"reflect"
	"slices"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Source{Path: "config.toml"}.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDesiredFollowsTheConfigurationAndTheOptions(t *testing.T) {
	t.Parallel()
	registries := []string{"docker.io", "ghcr.io", "quay.io", "registry.k8s.io"}
	const mirror = "http://127.0.0.1:305"
	all := []string{engine.Docker, engine.Containerd, engine.Podman, engine.CRIO, engine.BuildKit}
	for name, tt := range map[string]struct {
		text    string
		options Options
		want    engine.Desired
	}{
		"default":             {"", Options{}, engine.Desired{Mirror: mirror, Any: true, Registries: registries, Service: true, Engines: all}},
		"wildcard":            {"[registry.'*']\n", Options{}, engine.Desired{Mirror: mirror, Any: true, Registries: registries, Service: true, Engines: all}},
		"wildcard turned off": {"[registry.'*']\nenabled = false\n", Options{}, engine.Desired{Mirror: mirror, Registries: registries, Service: true, Engines: all}},
		"explicit": {"[registry.'r.example']\nca = '/a'\n", Options{},
			engine.Desired{Mirror: mirror, Any: true, Registries: append(slices.Clone(registries), "r.example"), Explicit: []string{"r.example"}, Service: true, Engines: all}},
		"client keys":       {"engine.adopt_client_keys = true\n", Options{}, engine.Desired{Mirror: mirror, Any: true, Registries: registries, CopyClientKeys: true, Service: true, Engines: all}},
		"engine turned off": {"engine.docker.enabled = false\n", Options{}, engine.Desired{Mirror: mirror, Any: true, Registries: registries, Service: true, Engines: all[1:]}},
		"logins": {"", Options{LoggedIn: []string{"r.example", "ghcr.io"}},
			engine.Desired{Mirror: mirror, Any: true, Registries: append(slices.Clone(registries), "r.example"), Service: true, Engines: all}},
		"engine named": {"engine.docker.enabled = false\n", Options{Engines: []string{engine.Docker}},
			engine.Desired{Mirror: mirror, Any: true, Registries: registries, Engines: []string{engine.Docker}, Leave: append([]string{engine.Sidemirror}, all[1:]...)}},
		"restart by the configuration": {"engine.containerd.restart = true\n", Options{},
			engine.Desired{Mirror: mirror, Any: true, Registries: registries, Service: true, Engines: all, RestartContainerd: true}},
		"credential helper": {"credentials.helpers = ['gcr.io=gcr']\ncredentials.files = ['/a.json']\n", Options{},
			engine.Desired{Mirror: mirror, Any: true, Registries: registries, Service: true, Engines: all, Helpers: true, CredentialFiles: []string{"/a.json"}}},
		"restart by an option": {"", Options{RestartContainerd: true},
			engine.Desired{Mirror: mirror, Any: true, Registries: registries, Service: true, Engines: all, RestartContainerd: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Desired(parse(t, tt.text), tt.options)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
	if _, err := Desired(parse(t, "listen = ['10.0.0.1:305']\n"), Options{}); err == nil {
		t.Error("no error without a loopback address")
	}
}
