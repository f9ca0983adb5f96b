package hosts_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	oldconfig "github.com/containerd/containerd/remotes/docker/config"
	newconfig "github.com/containerd/containerd/v2/core/remotes/docker/config"

	"github.com/sidemirror/sidemirror/hostconfig/splice"
)

// libraries are containerd's own readers of hosts.toml. Each returns the addresses that it asks, in
// their order, with their capabilities.
var libraries = map[splice.Version]func(dir string) (hosts []string, err error){
	{Major: 1, Minor: 7}: func(dir string) (hosts []string, err error) {
		options := oldconfig.HostOptions{HostDir: func(string) (string, error) { return dir, nil }}
		list, err := oldconfig.ConfigureHosts(context.Background(), options)("r.example")
		for _, h := range list {
			hosts = append(hosts, fmt.Sprintf("%s://%s%s %d", h.Scheme, h.Host, h.Path, h.Capabilities))
		}
		return hosts, err
	},
	{Major: 2, Minor: 4}: func(dir string) (hosts []string, err error) {
		options := newconfig.HostOptions{HostDir: func(string) (string, error) { return dir, nil }}
		list, err := newconfig.ConfigureHosts(context.Background(), options)("r.example")
		for _, h := range list {
			hosts = append(hosts, fmt.Sprintf("%s://%s%s %d", h.Scheme, h.Host, h.Path, h.Capabilities))
		}
		return hosts, err
	},
}

// hostForms are hosts.toml files, in good shape and in others.
var hostForms = []string{
	"", "# comment\n", "server = \"https://r.example\"\n", "server = \"https://other.example\"\n",
	"[host.\"https://a.example\"]\n", "[host.\"https://a.example\"]\r\ncapabilities = ['pull']\r\n\r\n[host.'https://b.example']", "[ host . \"https://a.example\" ] # x",
	"[\"host\".\"https://a.example\"]\n", "server = \"https://s.example\"\n[host.\"a.example:5000\"]\n[host.\"a.example:5000\".header]\nx = \"y\"\n[host.\"b.example\"]\n",
	"[host]\n[host.\"https://a.example\"]\n", "[host]\n", "[host]\nx = 1\n", "[host]\nx = \"y\"\n", "[host]\n\"https://a.example\" = {}\n",
	"[host]\n\"https://a.example\".capabilities = [\"pull\"]\n", "host = 5\n", "host = {}\n", "host = {x = 1}\n", "host = {\"https://a.example\" = {}}\n",
	"host.\"https://a.example\".capabilities = [\"pull\"]\n", "host.x = 1\n", "[[host]]\nx = 1\n", "[[host.\"https://a.example\"]]\n", "[host.a.example]\n",
	"[host.1]\n[host.2]\n", "[host.\"https://a.example\".header]\nx = \"y\"\n", "[host.\"https://a.example\"]\ncapabilities = [\"referrers\"]\n",
	"[host.\"https://a.example\"]\ncapabilities = [\"fetch\"]\n", "[host.\"https://a.example\"]\ncapabilities = \"pull\"\n", "[host.\"https://a.example\"]\nca = 5\n",
	"[host.\"https://a.example\"]\nclient = [[\"a\"]]\n", "[host.\"https://a.example\"]\nskip_verify = \"yes\"\n", "[host.\"https://a.example\"]\nheader = 5\n",
	"[host.\"https://a.example\"]\noverride_path = 1\n", "[host.\"https://a.example\"]\ndial_timeout = \"x\"\n", "[host.\"https://a.example\"]\ndial_timeout = 5\n",
	"[host.\"https://a:b:c\"]\n", "server = 5\n", "server = \"https://a:b:c\"\n", "capabilities = [\"pull\"]\n[host.\"https://a.example\"]\n", "[header]\nx = \"y\"\n[host.\"https://a.example\"]\n",
	"[host.\"http://[::1]:5000\"]\n", "\xef\xbb\xbf[host.\"https://a.example\"]\n", "[host.\"https://a.example\"]\nunknown = 1\n[unknown]\n", "[host.\"\"]\n",
}

// With sidemirror's table containerd asks sidemirror first, and then those that it asked before. No
// version panics, and none falls back to ignoring the file.
func TestContainerdAsksSidemirrorFirstAndThenAsBefore(t *testing.T) {
	const ours = "http://127.0.0.1:305/v2 "
	for version, read := range libraries {
		t.Run(fmt.Sprintf("%d.%d", version.Major, version.Minor), func(t *testing.T) {
			edited := 0
			for _, form := range hostForms {
				want := splice.Hosts{URL: "http://127.0.0.1:305", Registry: "r.example", Library: version}
				out, err := want.Add("hosts.toml", []byte(form))
				if err != nil {
					continue
				}
				edited++
				before, _ := hostsIn(t, read, form)
				after, err := hostsIn(t, read, string(out))
				if err != nil || len(after) == 0 || !strings.HasPrefix(after[0], ours) || !slices.Equal(after[1:], before) {
					t.Errorf("%q: containerd asks %q, and asked %q before: %v", form, after, before, err)
				}
				again, err := splice.RemoveHosts("hosts.toml", out, nil)
				if err != nil || !again.Bare && !bytes.Equal(again.Rest, []byte(form)) {
					t.Errorf("%q came back as %q: %v", form, again.Rest, err)
				}
			}
			if edited < 10 {
				t.Errorf("only %d forms were edited", edited)
			}
		})
	}
}

// hostsIn returns what a library reads in a hosts.toml.
func hostsIn(t *testing.T, read func(string) ([]string, error), text string) (hosts []string, err error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return read(dir)
}
